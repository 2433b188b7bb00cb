/** A circuit breaker: calls to a server that fails are refused for a while. */
import { type RunCall, startDeadline } from '@order-once/idempotency/batching'

/** One failed call says little; so many in a row mean that the server is lost. */
const FAILURES_BEFORE_OPEN = 5
/** Then one call a second tries whether the server is back. */
const OPEN_MS = 1_000
/** A slower call is a failure: a request that goes on without the server is faster. */
const SLOW_CALL_MS = 100

/** The call was refused: the circuit is open. */
export class CircuitOpenError extends Error {
  override name = 'CircuitOpenError'
}

interface CircuitBreaker {
  /**
   * Runs a call.
   *
   * @throws {CircuitOpenError} at once, while the circuit is open
   * @throws what the call throws
   */
  run: RunCall
  /** Whether calls are refused. */
  isOpen(): boolean
}

/**
 * Creates a breaker. It opens after failures in a row, and closes with the first call that succeeds. All
 * times are those of a monotonic clock: a change of the system's time has no effect.
 *
 * @param onChange called after each call, and whenever the circuit opens or closes; with the error of a
 * call that failed
 */
export function createCircuitBreaker(onChange: (error?: Error) => void): CircuitBreaker {
  let failuresInARow = 0
  /** by `performance.now()`; undefined while the circuit is closed */
  let tryAgainAt: number | undefined
  let isTrying = false

  function succeed(): void {
    failuresInARow = 0
    tryAgainAt = undefined
    onChange()
  }

  function fail(error: Error): void {
    failuresInARow++
    if (failuresInARow >= FAILURES_BEFORE_OPEN) tryAgainAt = performance.now() + OPEN_MS
    onChange(error)
  }

  async function run<T>(call: () => Promise<T>): Promise<T> {
    const isTrial = tryAgainAt !== undefined
    if (tryAgainAt !== undefined && (isTrying || performance.now() < tryAgainAt)) {
      throw new CircuitOpenError('the circuit to the server is open')
    }
    if (isTrial) isTrying = true
    let isSlow = false
    const stop = startDeadline(SLOW_CALL_MS, () => {
      isSlow = true
    })
    try {
      const result = await call()
      if (isSlow) fail(new Error(`the call took more than ${SLOW_CALL_MS} ms`))
      else succeed()
      return result
    } catch (error) {
      fail(error instanceof Error ? error : new Error(String(error)))
      throw error
    } finally {
      stop()
      if (isTrial) isTrying = false
    }
  }

  return { run, isOpen: () => tryAgainAt !== undefined }
}
