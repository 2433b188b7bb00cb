import { hash } from 'node:crypto'

/** Of SHA-256, in bytes (FIPS 180-4 §1). */
const BLOCK_BYTES = 64
const DIGEST_BYTES = 32

/** A key that is ready to sign with. */
export type Hmac = (message: Buffer) => string

/**
 * HMAC-SHA256 (RFC 2104 §2) from two one-shot hashes. `crypto.createHmac` makes an object of C++ for
 * each message, which costs three times as much, and the garbage collector as much again.
 *
 * @returns what signs a message: 64 hex digits in lower case
 */
export function createHmacSha256(secret: string): Hmac {
  const bytes = Buffer.from(secret, 'utf8')
  const key = Buffer.alloc(BLOCK_BYTES)
  if (bytes.length <= BLOCK_BYTES) bytes.copy(key)
  else hash('sha256', bytes, 'buffer').copy(key)
  const innerPad = key.map((byte) => byte ^ 0x36)
  const outer = Buffer.alloc(BLOCK_BYTES + DIGEST_BYTES)
  outer.set(key.map((byte) => byte ^ 0x5c))

  return (message) => {
    const inner = hash('sha256', Buffer.concat([innerPad, message]), 'binary')
    outer.write(inner, BLOCK_BYTES, 'binary')
    return hash('sha256', outer, 'hex')
  }
}
