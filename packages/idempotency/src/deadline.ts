/** A bound on how long a promise is waited for. */

/** Work did not end in time; whether it will succeed is unknown. */
export class DeadlineError extends Error {
  override name = 'DeadlineError'
}

/**
 * Calls `onEnd` after `ms`, and after the replies that were received by then have been read: they are in time,
 * even if this process was too busy to read them.
 *
 * @returns a function that stops it
 */
export function startDeadline(ms: number, onEnd: () => void): () => void {
  const timer = setTimeout(() => setImmediate(onEnd), ms)
  return () => clearTimeout(timer)
}

/**
 * Waits for the promise for at most `ms`, as `startDeadline` measures them. The work itself is not cancelled.
 *
 * @throws {DeadlineError} once `ms` have passed
 */
export function withDeadline<T>(work: Promise<T>, ms: number, message: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = startDeadline(ms, () => reject(new DeadlineError(`${message} (${ms} ms)`)))
    work.then(
      (result) => {
        stop()
        resolve(result)
      },
      (error) => {
        stop()
        reject(error)
      },
    )
  })
}
