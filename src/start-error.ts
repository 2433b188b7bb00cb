/**
 * What keeps the service from starting and a person can mend: a bad setting, a busy port, a store
 * that does not answer. `server.ts` prints its message as one line, without a stack trace, and
 * exits with a non-zero code.
 */
export class StartError extends Error {
  override name = 'StartError'
}
