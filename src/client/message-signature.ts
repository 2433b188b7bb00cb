/** Signs with a key of the client: HTTP message signatures (RFC 9421). */
import { createPrivateKey, hash, type KeyObject } from 'node:crypto'
import {
  isKeyId,
  KEY_ID_RULE,
  type KeyAlgorithm,
  KeyRuleError,
  parseJsonWebKey,
} from '../clients/json-web-key.ts'
import { SIGNATURE_ALGORITHMS } from '../clients/signature-algorithms.ts'
import type { Signer } from './sign.ts'

/** The key with which a client signs: a private key, or a secret. */
export interface SigningKey {
  kid: string
  algorithm: KeyAlgorithm
  key: KeyObject
}

/**
 * Parses the file of a client: a private key or a secret, as a JSON Web Key (RFC 7517).
 *
 * @throws {KeyRuleError} that names the member
 */
export function parseSigningKey(text: string): SigningKey {
  const { d, ...jwk } = parseObject(text)
  const { kid } = jwk
  if (!isKeyId(kid)) throw new KeyRuleError('kid', KEY_ID_RULE)
  const { algorithm, key } = parseJsonWebKey(jwk)
  if (algorithm === 'hmac-sha256') return { kid, algorithm, key }
  return { kid, algorithm, key: importPrivateKey(jwk, d, algorithm, key) }
}

/** @throws {KeyRuleError} */
function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value }
  } catch {
    // It has the same rule.
  }
  throw new KeyRuleError(
    undefined,
    'must be one JSON object, such as the first line on stdout of order-once keygen, which begins with {',
  )
}

/** @throws {KeyRuleError} */
function importPrivateKey(
  publicJwk: object,
  d: unknown,
  algorithm: KeyAlgorithm,
  publicKey: KeyObject,
): KeyObject {
  if (d === undefined) {
    throw new KeyRuleError(
      'd',
      'must be here: it is the private key, without which nothing is signed',
    )
  }
  try {
    const key = createPrivateKey({ key: { ...publicJwk, d: `${d}` }, format: 'jwk' })
    // Node.js (24) imports a P-256 key without a comparison of its halves.
    const probe = Buffer.from('probe')
    const { sign, verify } = SIGNATURE_ALGORITHMS[algorithm]
    if (verify(publicKey, probe, sign(key, probe))) return key
  } catch {
    // It has the same rule.
  }
  throw new KeyRuleError('d', 'must be the private key of the public key in this file')
}

/**
 * Creates a signer with a key of the client. A signature covers what the service requires of a POST, and has the
 * time at which it is made.
 */
export function createMessageSigner({ kid, algorithm, key }: SigningKey): Signer {
  return ({ method, url, headers }, body) => {
    const { host, pathname } = new URL(url)
    const digest = `sha-256=:${hash('sha256', body, 'base64')}:`
    const components = {
      '@method': method,
      // Without these ports whatever the scheme, as the service reads it.
      '@authority': host.replace(/:(80|443)$/, ''),
      '@path': pathname,
      'content-digest': digest,
      'content-type': headers.get('content-type'),
      'idempotency-key': headers.get('idempotency-key'),
    }
    const names = Object.keys(components).map((name) => `"${name}"`)
    const created = Math.floor(Date.now() / 1000)
    const input = `(${names.join(' ')});created=${created};keyid="${kid}"`
    const lines = Object.entries(components).map(([name, value]) => `"${name}": ${value}\n`)
    const base = Buffer.from(`${lines.join('')}"@signature-params": ${input}`)
    return {
      'Content-Digest': digest,
      'Signature-Input': `sig1=${input}`,
      Signature: `sig1=:${SIGNATURE_ALGORITHMS[algorithm].sign(key, base).toString('base64')}:`,
    }
  }
}
