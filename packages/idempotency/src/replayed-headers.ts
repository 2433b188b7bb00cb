/** The headers of a response that its replays repeat. */
import type { FastifyReply } from 'fastify'

/** Headers that describe the body: with other values, or without them, the same bytes mean something else. */
export const BODY_HEADERS = [
  'content-digest',
  'content-disposition',
  'content-encoding',
  'content-language',
  'content-location',
  'content-type',
  'etag',
  'last-modified',
  'repr-digest',
]

/** Headers that describe the response itself. */
export const DEFAULT_REPLAYED_HEADERS = [
  ...BODY_HEADERS,
  'cache-control',
  'link',
  'location',
  'vary',
]

/**
 * Headers of one delivery: a session's cookie, the time, the state of a rate limit, and those of one
 * connection (RFC 9110 §7.6.1).
 */
const NEVER_REPLAYED =
  /^(set-cookie|date|age|connection|keep-alive|te|trailer|transfer-encoding|upgrade|proxy-.*|content-length|(x-)?ratelimit-.*|retry-after|x-request-id|idempotency-replayed|preference-applied)$/

/**
 * Checks the names of headers.
 *
 * @returns them in lower case, after those that describe the body, which no replay can be without
 * @throws {Error} that names the first header that must never be replayed
 */
export function checkReplayedHeaders(names: string[]): string[] {
  const lowerCase = names.map((name) => name.toLowerCase())
  const forbidden = lowerCase.find((name) => NEVER_REPLAYED.test(name))
  if (forbidden) throw new Error(`the header ${forbidden} must not be replayed`)
  return [...new Set([...BODY_HEADERS, ...lowerCase])]
}

/** Reads the headers of the reply that have one of these names. */
export function readReplayedHeaders(
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
