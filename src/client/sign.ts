import { createHmac } from 'node:crypto'

/** An order that is ready to be sent, as often as need be: always the same key and the same bytes. */
export interface SignedOrder {
  /** without the body, which a `Request` can give only once */
  request: Request
  body: Uint8Array<ArrayBuffer>
}

/**
 * Signs a body: the HMAC-SHA256 (RFC 2104) of its exact bytes, as 64 hex digits.
 *
 * @param body the bytes that will be sent; formatted anew, they need another signature
 */
export function sign(body: Uint8Array, secret: string): string {
  return createHmac('sha256', secret).update(body).digest('hex')
}

/**
 * Signs an order and puts it under its key.
 *
 * @param url where the service is, such as http://127.0.0.1:8080
 * @param key the Idempotency-Key: one for each new order
 * @throws {TypeError} if `url` is no URL, or `key` cannot be sent in a header
 */
export function signOrder(
  url: string,
  key: string,
  body: Uint8Array<ArrayBuffer>,
  secret: string,
): SignedOrder {
  const request = new Request(`${url.replace(/\/+$/, '')}/orders`, {
    method: 'POST',
    headers: {
      'Content-Type': 'application/json',
      'Idempotency-Key': key,
      'X-Signature': sign(body, secret),
    },
    // To follow a redirect could turn the POST into a GET (RFC 9110 §15.4.2).
    redirect: 'manual',
  })
  return { request, body }
}
