import type { FastifyReply } from 'fastify'

/** What tells of the answer rather than of one delivery of it. */
export const DEFAULT_REPLAYED_HEADERS = [
  'cache-control',
  'content-disposition',
  'content-encoding',
  'content-language',
  'content-location',
  'content-type',
  'etag',
  'last-modified',
  'link',
  'location',
  'vary',
]

/**
 * What must be fresh or is another's: a session's cookie, the time, the limit's state, and what
 * concerns one connection only (RFC 9110 §7.6.1).
 */
const NEVER_REPLAYED =
  /^(set-cookie|date|age|connection|keep-alive|te|trailer|transfer-encoding|upgrade|proxy-.*|content-length|(x-)?ratelimit-.*|retry-after|x-request-id|idempotency-replayed|preference-applied)$/

/** @throws {Error} naming the first header that must never be replayed */
export function checkReplayedHeaders(names: string[]): string[] {
  const lowerCase = names.map((name) => name.toLowerCase())
  const forbidden = lowerCase.find((name) => NEVER_REPLAYED.test(name))
  if (forbidden) throw new Error(`the header ${forbidden} must not be replayed`)
  return lowerCase
}

/** Those of the headers that the reply has, as they will be sent again. */
export function replayedHeadersOf(
  reply: FastifyReply,
  names: string[],
): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = {}
  for (const name of names) {
    const value = reply.getHeader(name)
    if (value !== undefined)
      headers[name] = Array.isArray(value) ? value.map(String) : String(value)
  }
  return headers
}
