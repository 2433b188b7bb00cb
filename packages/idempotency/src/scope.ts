/** What a key belongs to. */
import { hash } from 'node:crypto'

/** For keys that belong to no scope, on purpose: their records have the name of the key alone. */
export const NO_SCOPE = Symbol('NO_SCOPE')

/** A longer one counts by its hash: stores limit the length of a name. */
const MAX_SCOPE_LENGTH = 255

/**
 * Names the record of a key. No key contains a comma, so keys of different scopes never collide.
 *
 * @throws {Error} if the scope is no text: a missing one would be shared by all who have none
 */
export function nameRecord(scope: unknown, key: string): string {
  if (scope === NO_SCOPE) return key
  if (typeof scope !== 'string' || scope === '') {
    throw new Error(`the option scope must return a non-empty string, not ${describe(scope)}`)
  }
  return `${encodeScope(scope)},${key}`
}

function encodeScope(scope: string): string {
  try {
    if (scope.length <= MAX_SCOPE_LENGTH) return encodeURIComponent(scope)
  } catch {
    // A lone surrogate has no UTF-8.
  }
  // No encoded text contains a colon. UTF-16 keeps lone surrogates apart.
  return `sha256:${hash('sha256', Buffer.from(scope, 'utf16le'), 'hex')}`
}

const describe = (value: unknown) => (value === '' ? 'an empty one' : String(value))
