/** The syntax of idempotency keys. */

/** The characters of a key, as a class of a regular expression: visible ASCII without `"`, `,`, `\`. */
export const KEY_CHARACTERS = '[!#-+\\--\\[\\]-~]'

/** Long enough for every id in use, short enough to be part of the name of a record. */
export const MAX_KEY_LENGTH = 255

const KEY = new RegExp(`^${KEY_CHARACTERS}{1,${MAX_KEY_LENGTH}}$`)

/**
 * Reads the value of an `Idempotency-Key` header: the structured-field string `"key-001"` of
 * draft-ietf-httpapi-idempotency-key-header-07 §2.1 (RFC 9651 §3.3.3), or the bare form `key-001`.
 *
 * @returns the key, without quotes, or `undefined` if the value breaks the syntax: 1–255 bytes of
 * visible ASCII, without `"`, `,` and `\`. Several headers, which Node joins with a comma, break it.
 */
export function parseIdempotencyKey(header: string): string | undefined {
  const isQuoted = header.length >= 2 && header.startsWith('"') && header.endsWith('"')
  const key = isQuoted ? header.slice(1, -1) : header
  return KEY.test(key) ? key : undefined
}
