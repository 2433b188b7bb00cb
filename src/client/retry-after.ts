/** The `Retry-After` header: the wait that the service requests. */

const SECONDS = /^\d+$/
/** All three date formats of HTTP begin with the weekday. */
const DATE = /^(mon|tue|wed|thu|fri|sat|sun)/i

/**
 * Parses a `Retry-After` header: a number of seconds, or a date in any of the three HTTP formats.
 *
 * @param now ms since 1970
 * @returns whole ms from now, 0 for a date in the past; undefined if the header is absent or malformed
 * @see RFC 9110 §10.2.3 and §5.6.7
 */
export function parseRetryAfter(header: string | null, now: number): number | undefined {
  const value = header?.trim() ?? ''
  if (SECONDS.test(value)) return Number(value) * 1000
  if (!DATE.test(value)) return undefined
  // The asctime format has no time zone; it means UTC.
  const date = Date.parse(value.endsWith('GMT') ? value : `${value} GMT`)
  return Number.isNaN(date) ? undefined : Math.max(0, Math.ceil(date - now))
}
