/** Why nothing can be signed in this page, or undefined if it can: browsers offer it to safe ones only. */
export const cannotSign = globalThis.isSecureContext
  ? undefined
  : 'This page cannot sign: browsers do so only over https, or on localhost.'

/**
 * Makes a secret into a key that signs and cannot be read again: what the page keeps of it, and only in
 * memory.
 */
export function signingKey(secret: string): Promise<CryptoKey> {
  const algorithm = { name: 'HMAC', hash: 'SHA-256' }
  return crypto.subtle.importKey('raw', encode(secret), algorithm, false, ['sign'])
}

/** The `X-Signature` of a body, which must be sent exactly as it is here. */
export async function sign(body: string, key: CryptoKey): Promise<string> {
  return hex(await crypto.subtle.sign('HMAC', key, encode(body)))
}

/** An `Idempotency-Key` that nobody has used. (`randomUUID` would need a page that can sign.) */
export function newKey(): string {
  return `key-${hex(crypto.getRandomValues(new Uint8Array(16)).buffer)}`
}

const encode = (text: string) => new TextEncoder().encode(text)

const hex = (bytes: ArrayBuffer) =>
  [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, '0')).join('')
