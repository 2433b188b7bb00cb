/** Errors that stop the start and that a person can fix. */

/**
 * A bad setting, a busy port, a store that does not respond. The command prints its message as one line,
 * without a stack, and exits with code 1.
 */
export class StartError extends Error {
  override name = 'StartError'
}
