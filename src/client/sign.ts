/** Signs an order: its body and its key are the same in every attempt. */
import { createHmac } from 'node:crypto'

/** Creates the headers that sign a request with this body. */
export type Signer = (request: Request, body: Uint8Array) => Record<string, string>

/** An order that is ready to be sent, any number of times. */
export interface SignedOrder {
  /** Creates a request that is signed now. It has no body, because a `Request` can send its body only once. */
  createRequest(): Request
  body: Uint8Array<ArrayBuffer>
}

/**
 * Signs a body: the HMAC-SHA256 (RFC 2104) of its exact bytes, as 64 hex digits.
 *
 * @param body the bytes as they will be sent; the same JSON in another format needs another signature
 */
export function sign(body: Uint8Array, secret: string): string {
  return createHmac('sha256', secret).update(body).digest('hex')
}

/** Creates a signer with the secret that all clients of `X-Signature` share. */
export function createSecretSigner(secret: string): Signer {
  return (_, body) => ({ 'X-Signature': sign(body, secret) })
}

/**
 * Adds an idempotency key to an order, and a signature to each of its requests.
 *
 * @param url address of the service, such as http://127.0.0.1:8080
 * @param key the idempotency key: a new one for each new order
 * @throws {TypeError} if `url` is not a URL, or `key` is not a valid header value
 */
export function signOrder(
  url: string,
  key: string,
  body: Uint8Array<ArrayBuffer>,
  signer: Signer,
): SignedOrder {
  const unsigned = new Request(`${url.replace(/\/+$/, '')}/orders`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key },
    // A followed redirect could turn the POST into a GET (RFC 9110 §15.4.2).
    redirect: 'manual',
  })
  return {
    body,
    createRequest() {
      const request = unsigned.clone()
      for (const [name, value] of Object.entries(signer(request, body))) {
        request.headers.set(name, value)
      }
      return request
    },
  }
}
