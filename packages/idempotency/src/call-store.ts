/** Calls to the store. */
import { withDeadline } from './deadline.ts'

/** Waits for the result of a call for at most `ms`. @throws {DeadlineError} after that; the call is not cancelled */
export function awaitStore<T>(result: Promise<T>, ms: number): Promise<T> {
  return withDeadline(result, ms, 'the idempotency store did not respond')
}

/** Calls the store, and waits for at most `ms`. @throws what the call throws, or {DeadlineError} after that */
export async function callStore<T>(call: () => T | Promise<T>, ms: number): Promise<T> {
  return awaitStore(Promise.resolve(call()), ms)
}
