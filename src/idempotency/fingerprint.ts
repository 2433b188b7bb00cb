import { createHash } from 'node:crypto'
import canonicalize from 'canonicalize'

/** Names the algorithm below: a change of it must not turn honest retries into conflicts. */
const VERSION = 'v1'

/**
 * The fingerprint that tells "the same request": SHA-256 over the method, the route's path and the
 * body in canonical form (RFC 8785), so that member order and white space do not matter.
 *
 * @param body a value that came from JSON
 * @returns `v1:` and 64 hex digits
 * @see draft-ietf-httpapi-idempotency-key-header-07 §2.4
 */
export function fingerprintOf(method: string, path: string, body: unknown): string {
  const canonical = `${method} ${path}\n${canonicalize(body) ?? ''}`
  return `${VERSION}:${createHash('sha256').update(canonical).digest('hex')}`
}
