/** Fingerprints: what "the same request" means. */
import { hash } from 'node:crypto'
import type { ServerHttp2Stream } from 'node:http2'
import type { FastifyRequest } from 'fastify'
import { canonicalize, OpaqueValueError } from './canonical-json.ts'

/** Names the algorithm below: a change of it must not turn honest retries into conflicts. */
const VERSION = 'v1'

/** The parts of a request that its fingerprint covers. */
export interface FingerprintInput {
  method: string
  /** the route's path, such as `/orders/:id/refunds` */
  path: string
  /** the values in the path, if it has any */
  params?: unknown
  /** the values of the query, if it has any */
  query?: unknown
  /** a value that was parsed from JSON, or bytes, which count as they are; undefined: there is none */
  body: unknown
}

/**
 * Computes the fingerprint of a request: SHA-256 over the method, the path and the body in canonical
 * form (RFC 8785), so that member order and white space do not matter.
 *
 * @returns `v1:` and 64 hex digits
 * @throws {NotCanonicalError} for a number that JSON does not have, and for too many levels
 * @throws {OpaqueValueError} for a value that cannot be distinguished from another
 * @see draft-ietf-httpapi-idempotency-key-header-07 §2.4
 */
export function fingerprintRequest({
  method,
  path,
  params,
  query,
  body,
}: FingerprintInput): string {
  const target = [method, path, ...[params, query].map(canonicalizeNonEmpty)].join(' ').trimEnd()
  const input = Buffer.isBuffer(body)
    ? Buffer.concat([Buffer.from(`${target}\n`), body])
    : `${target}\n${body === undefined ? '' : canonicalize(body)}`
  return `${VERSION}:${hash('sha256', input, 'hex')}`
}

/**
 * Computes the same fingerprint of a request without params and query, whose body is in canonical form.
 *
 * @param body canonical JSON (RFC 8785)
 */
export function fingerprintCanonical(method: string, path: string, body: string): string {
  return `${VERSION}:${hash('sha256', `${method} ${path}\n${body}`, 'hex')}`
}

/**
 * Computes the fingerprint of a request as Fastify has parsed it.
 *
 * @throws {NotCanonicalError} for a number that JSON does not have, and for too many levels
 * @throws {OpaqueValueError} if the request has a body that is not in `request.body`, as
 * `@fastify/multipart` leaves it, or a value that cannot be distinguished from another
 */
export function fingerprintParsedRequest(request: FastifyRequest): string {
  const { method, routeOptions, url, params, query, body } = request
  if (body === undefined && hasBody(request)) {
    throw new OpaqueValueError('the request has a body, but request.body is undefined')
  }
  return fingerprintRequest({ method, path: routeOptions.url ?? url, params, query, body })
}

/** @see RFC 9112 §6.3, RFC 9113 §8.1: a body in HTTP/2 needs no header */
function hasBody({ headers, raw }: FastifyRequest): boolean {
  const { 'content-length': length, 'transfer-encoding': encoding } = headers
  if (encoding !== undefined || (length !== undefined && Number(length) !== 0)) return true
  return 'stream' in raw && (raw.stream as ServerHttp2Stream).endAfterHeaders === false
}

const canonicalizeNonEmpty = (values: unknown) =>
  typeof values === 'object' && values !== null && Object.keys(values).length > 0
    ? canonicalize(values)
    : ''
