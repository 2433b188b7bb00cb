/** The secret that the clients share with the service, and signs of damage in it and in other settings. */

/** That of a service without settings. It is published, so production refuses it. */
export const DEVELOPMENT_SECRET = 'super-secret-key'

/**
 * Finds a sign of damage in the value of a setting or in one secret of several, such as quotes around it. No secret,
 * file or host looks like this.
 *
 * @returns the rule that is broken, as in "a secret must not be in quotes"; undefined if there is none
 */
export function findDamage(value: string): string | undefined {
  if (value !== value.trim()) return 'must not begin or end with white space'
  if (
    /^(?:(["'`]).*\1|[\u201C\u201D].*[\u201C\u201D]|[\u2018\u2019].*[\u2018\u2019])$/s.test(value)
  ) {
    return 'must not be in quotes' // those of a keyboard, or of a word processor
  }
  // Node.js has put this character in place of what it could not decode.
  if (value.includes('\uFFFD')) return 'must be UTF-8'
  // Those of formats (Cf), such as U+200B, are invisible: a copied text may have them.
  if (/[\p{Cc}\p{Cf}]/u.test(value)) return 'must not have control or invisible characters'
  return undefined
}
