/** Signs an order: its body, its key and its signature are the same in every attempt. */
import { createHmac } from 'node:crypto'

/** An order that is ready to be sent, any number of times. */
export interface SignedOrder {
  /** has no body, because a `Request` can send its body only once */
  request: Request
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

/**
 * Signs an order and adds its idempotency key.
 *
 * @param url address of the service, such as http://127.0.0.1:8080
 * @param key the idempotency key: a new one for each new order
 * @throws {TypeError} if `url` is not a URL, or `key` is not a valid header value
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
    // A followed redirect could turn the POST into a GET (RFC 9110 §15.4.2).
    redirect: 'manual',
  })
  return { request, body }
}
