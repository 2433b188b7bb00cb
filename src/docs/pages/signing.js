/** Signs requests in the browser and creates idempotency keys. */

/** Why this page cannot sign; undefined if it can. */
export const signingError = globalThis.isSecureContext
  ? undefined
  : 'This page cannot sign: browsers offer it only over https or on localhost.'

/**
 * Turns a secret into a key that signs and cannot be read again.
 *
 * @param {string} secret
 */
export function importSecret(secret) {
  const algorithm = { name: 'HMAC', hash: 'SHA-256' }
  return crypto.subtle.importKey('raw', encode(secret), algorithm, false, ['sign'])
}

/**
 * Returns the `X-Signature` of a body, which must be sent byte for byte.
 *
 * @param {string} body
 * @param {CryptoKey} key
 */
export async function sign(body, key) {
  return formatHex(new Uint8Array(await crypto.subtle.sign('HMAC', key, encode(body))))
}

/** Creates a new `Idempotency-Key`. (`crypto.randomUUID` exists only where a page can sign.) */
export function createKey() {
  return `key-${formatHex(crypto.getRandomValues(new Uint8Array(16)))}`
}

/** @param {string} text */
const encode = (text) => new TextEncoder().encode(text)

/** @param {Uint8Array} bytes */
const formatHex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
