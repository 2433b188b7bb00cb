/** Visible ASCII without the characters that would make the two header forms ambiguous. */
const KEY = /^[\x21\x23-\x2b\x2d-\x5b\x5d-\x7e]{1,255}$/

/**
 * Reads the value of an `Idempotency-Key` header: the structured-field string `"key-001"` of
 * draft-ietf-httpapi-idempotency-key-header-07 §2.1 (RFC 9651 §3.3.3), or the bare form `key-001`.
 *
 * @returns the key, without quotes, or `undefined` if the value breaks the syntax: 1–255 bytes of
 * visible ASCII, without `"`, `,` and `\`
 */
export function parseIdempotencyKey(header: string): string | undefined {
  const quoted = header.length >= 2 && header.startsWith('"') && header.endsWith('"')
  const key = quoted ? header.slice(1, -1) : header
  return KEY.test(key) ? key : undefined
}
