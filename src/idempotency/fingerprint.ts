import { createHash } from 'node:crypto'
import canonicalize from 'canonicalize'

/** Names the algorithm below: a change of it must not turn honest retries into conflicts. */
const VERSION = 'v1'

/** What a fingerprint is taken of. */
export interface FingerprintInput {
  method: string
  /** the route's path, such as `/orders/:id/refunds` */
  path: string
  /** the values in the path, if it has any */
  params?: unknown
  /** a value that came from JSON, or bytes, which count as they are */
  body: unknown
}

/**
 * The fingerprint that tells "the same request": SHA-256 over the method, the path and the body in
 * canonical form (RFC 8785), so that member order and white space do not matter.
 *
 * @returns `v1:` and 64 hex digits
 * @see draft-ietf-httpapi-idempotency-key-header-07 §2.4
 */
export function fingerprintOf({ method, path, params, body }: FingerprintInput): string {
  const hasParams = typeof params === 'object' && params !== null && Object.keys(params).length > 0
  const target = hasParams ? `${path} ${canonicalize(params)}` : path
  const hash = createHash('sha256').update(`${method} ${target}\n`)
  hash.update(Buffer.isBuffer(body) ? body : (canonicalize(body) ?? ''))
  return `${VERSION}:${hash.digest('hex')}`
}
