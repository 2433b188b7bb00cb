/**
 * The algorithms of HTTP message signatures (RFC 9421 §3.3), by their names in the registry of §6.2. Each is for
 * one type of key only.
 */
import { createHmac, type KeyObject, sign, timingSafeEqual, verify } from 'node:crypto'
import type { KeyAlgorithm } from './json-web-key.ts'

interface SignatureAlgorithm {
  /** @param key a private key, or a secret */
  sign(key: KeyObject, base: Buffer): Buffer
  /** Whether the bytes are the signature of the base, made with this secret or with the private half of this key. */
  verify(key: KeyObject, base: Buffer, signature: Buffer): boolean
}

/** §3.3.4. The signature is r‖s, each of 32 bytes; not DER, Node's default. */
const P256_ENCODING = { dsaEncoding: 'ieee-p1363' } as const

const signWithHmac = (key: KeyObject, base: Buffer) =>
  createHmac('sha256', key).update(base).digest()

export const SIGNATURE_ALGORITHMS: Record<KeyAlgorithm, SignatureAlgorithm> = {
  /** §3.3.3. Compares in constant time. */
  'hmac-sha256': {
    sign: signWithHmac,
    verify(key, base, signature) {
      const expected = signWithHmac(key, base)
      return expected.length === signature.length && timingSafeEqual(expected, signature)
    },
  },
  'ecdsa-p256-sha256': {
    sign: (key, base) => sign('sha256', base, { key, ...P256_ENCODING }),
    verify: (key, base, signature) => verify('sha256', base, { key, ...P256_ENCODING }, signature),
  },
  /** §3.3.6 */
  ed25519: {
    sign: (key, base) => sign(null, base, key),
    verify: (key, base, signature) => verify(null, base, key, signature),
  },
}
