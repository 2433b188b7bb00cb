/** Which responses are results of processing, and are stored. */
import type { FastifyReply } from 'fastify'

/**
 * Refusals that depend on the moment, the caller or a state that changes: the same request may succeed
 * later (RFC 9110 §15.5, RFC 4918 §11, RFC 6585, RFC 8470).
 */
const PASSING_REFUSALS = new Set([401, 403, 407, 408, 409, 412, 421, 423, 425, 428, 429])

/**
 * Decides by default whether a response is stored: each success and redirection, and the refusals that a
 * repeat would get again. A `Retry-After` says that it may not.
 */
export function isResultOfProcessing(statusCode: number, reply: FastifyReply): boolean {
  if (statusCode < 400) return true
  return statusCode < 500 && !PASSING_REFUSALS.has(statusCode) && !reply.hasHeader('retry-after')
}
