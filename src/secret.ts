/** The secret that the clients share with the service. */

/** That of a service without settings. It is published, so production refuses it. */
export const DEVELOPMENT_SECRET = 'super-secret-key'

/**
 * Finds what shows that a secret was damaged before it was read: no client signs with such a secret.
 *
 * @returns the rule that is broken, as in "a secret must not be in quotes"; undefined if there is none
 */
export function findDamage(secret: string): string | undefined {
  if (secret !== secret.trim()) return 'must not begin or end with white space'
  if (/^(["'`]).*\1$/s.test(secret)) return 'must not be in quotes'
  // Node.js has put this character in place of what it could not decode.
  if (secret.includes('\uFFFD')) return 'must be UTF-8'
  // Those of formats (Cf) are invisible: a copied text may have them.
  if (/[\p{Cc}\p{Cf}]/u.test(secret)) return 'must not have control characters'
  return undefined
}
