/** The algorithms of HTTP message signatures (RFC 9421 §3.3) that the service verifies. */
import { createHmac, type KeyObject, timingSafeEqual, verify } from 'node:crypto'
import type { KeyAlgorithm } from '../clients/json-web-key.ts'

/** Whether the bytes are the signature of the base, made with this key or its private half. */
type VerifySignature = (key: KeyObject, base: Buffer, signature: Buffer) => boolean

/** By their names in the registry of RFC 9421 §6.2. Each verifies with one type of key only. */
export const ALGORITHMS = {
  /** §3.3.3. Compares in constant time. */
  'hmac-sha256': (key, base, signature) => {
    const expected = createHmac('sha256', key).update(base).digest()
    return expected.length === signature.length && timingSafeEqual(expected, signature)
  },
  /** §3.3.4. The signature is r‖s, each of 32 bytes; not DER, Node's default. */
  'ecdsa-p256-sha256': (key, base, signature) =>
    verify('sha256', base, { key, dsaEncoding: 'ieee-p1363' }, signature),
  /** §3.3.6 */
  ed25519: (key, base, signature) => verify(null, base, key, signature),
} as const satisfies Record<KeyAlgorithm, VerifySignature>
