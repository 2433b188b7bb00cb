/** The `Prefer` header (RFC 7240). */

/**
 * Reads `wait`: how long the client would rather wait than be refused.
 *
 * @returns seconds, or undefined if the header has no `wait` that can be read
 * @see RFC 7240 §2 (the first of several counts) and §4.3
 */
export function parsePreferredWait(header: string | string[] | undefined): number | undefined {
  if (header === undefined) return undefined
  for (const preference of [header].flat().join(',').split(',')) {
    const [, name, seconds] =
      /^\s*(\w[\w-]*)\s*=\s*"?(\d{1,9})"?\s*(?:;.*)?$/.exec(preference) ?? []
    if (name?.toLowerCase() === 'wait') return Number(seconds)
  }
  return undefined
}
