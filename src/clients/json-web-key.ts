/** Keys of clients as JSON Web Keys (RFC 7517). */
import { createPublicKey, createSecretKey, type KeyObject } from 'node:crypto'

/** By their names in the registry of RFC 9421 §6.2. */
export type KeyAlgorithm = 'hmac-sha256' | 'ed25519' | 'ecdsa-p256-sha256'

/** A key that verifies signatures with one algorithm. */
export interface VerificationKey {
  algorithm: KeyAlgorithm
  key: KeyObject
}

/** A member of a key breaks a rule. */
export class KeyRuleError extends Error {
  /** undefined: the key as a whole */
  readonly member: string | undefined

  constructor(member: string | undefined, rule: string) {
    super(rule)
    this.member = member
  }
}

/** What the parameter `keyid` of a signature can have, without the characters that it would escape. */
const KEY_ID = /^[ !#-[\]-~]{1,255}$/
export const KEY_ID_RULE = 'must be 1 to 255 ASCII characters without " and \\'

/** Whether a value is a well-formed `kid`, as `KEY_ID_RULE` says. */
export const isKeyId = (kid: unknown): kid is string => typeof kid === 'string' && KEY_ID.test(kid)

/** An HMAC-SHA256 key that is shorter than the hash weakens it (RFC 2104 §3). */
const MIN_SECRET_BYTES = 32
/** The size of a point of Ed25519 (RFC 8037 §2), and of a coordinate of P-256 (RFC 7518 §6.2.1.2). */
const COORDINATE_BYTES = 32
/**
 * The y of all points of Ed25519 whose order divides 8, as libsodium lists them: 0, 1, two of order 8, and with
 * p = 2^255 - 19 also p - 1, p and p + 1. OpenSSL accepts them, and a signature for such a key needs no private key.
 */
const LOW_ORDER_Y_HEX = [
  '00'.repeat(32),
  `01${'00'.repeat(31)}`,
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  ...['ec', 'ed', 'ee'].map((low) => `${low}${'ff'.repeat(30)}7f`),
]

/**
 * Parses a public key or a shared secret. Ignores members that it does not need (RFC 7517 §4).
 *
 * @throws {KeyRuleError} that names the member
 */
export function parseJsonWebKey(jwk: Record<string, unknown>): VerificationKey {
  if ('d' in jwk) {
    throw new KeyRuleError(
      'd',
      'must not be here: it is the private key, which only the client has',
    )
  }
  switch (jwk.kty) {
    case 'oct': {
      const secret = decodeBase64url(jwk.k)
      if (secret === undefined || secret.length < MIN_SECRET_BYTES) {
        throw new KeyRuleError('k', `must be base64url of ${MIN_SECRET_BYTES} bytes or more`)
      }
      return { algorithm: 'hmac-sha256', key: createSecretKey(secret) }
    }
    case 'OKP':
      if (jwk.crv !== 'Ed25519') throw new KeyRuleError('crv', 'must be Ed25519')
      return { algorithm: 'ed25519', key: importEd25519Key(jwk) }
    case 'EC':
      if (jwk.crv !== 'P-256') throw new KeyRuleError('crv', 'must be P-256')
      return { algorithm: 'ecdsa-p256-sha256', key: importPublicKey(jwk, ['x', 'y']) }
    default:
      throw new KeyRuleError('kty', 'must be oct, OKP or EC')
  }
}

/** @throws {KeyRuleError} */
function importEd25519Key(jwk: Record<string, unknown>): KeyObject {
  const key = importPublicKey(jwk, ['x'])
  const y = Buffer.from(String(jwk.x), 'base64url')
  y[31] = (y[31] ?? 0) & 0x7f // without the sign of x
  if (LOW_ORDER_Y_HEX.includes(y.toString('hex'))) {
    throw new KeyRuleError('x', 'must not be a point of low order: anyone can sign with it')
  }
  return key
}

/** @throws {KeyRuleError} */
function importPublicKey(jwk: Record<string, unknown>, coordinates: string[]): KeyObject {
  for (const name of coordinates) {
    if (decodeBase64url(jwk[name])?.length !== COORDINATE_BYTES) {
      throw new KeyRuleError(name, `must be base64url of ${COORDINATE_BYTES} bytes`)
    }
  }
  try {
    return createPublicKey({ key: jwk, format: 'jwk' })
  } catch {
    throw new KeyRuleError(undefined, `must be a point of the curve ${jwk.crv}`)
  }
}

/** @returns undefined if it is no text, or not base64url without padding (RFC 7515 §2) */
function decodeBase64url(text: unknown): Buffer | undefined {
  if (typeof text !== 'string') return undefined
  const bytes = Buffer.from(text, 'base64url')
  return bytes.toString('base64url') === text ? bytes : undefined
}
