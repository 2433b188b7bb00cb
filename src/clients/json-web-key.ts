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
      return { algorithm: 'ed25519', key: importPublicKey(jwk, ['x']) }
    case 'EC':
      if (jwk.crv !== 'P-256') throw new KeyRuleError('crv', 'must be P-256')
      return { algorithm: 'ecdsa-p256-sha256', key: importPublicKey(jwk, ['x', 'y']) }
    default:
      throw new KeyRuleError('kty', 'must be oct, OKP or EC')
  }
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
