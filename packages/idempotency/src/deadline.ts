/** A bound on how long a promise is waited for. */

/** Work did not end in time; whether it will succeed is unknown. */
export class DeadlineError extends Error {
  override name = 'DeadlineError'
}

/**
 * Waits for the promise for at most `ms`. The work itself is not cancelled. A reply that was received in
 * time is in time, even if this process was too busy to read it: replies are read once more at the end.
 *
 * @throws {DeadlineError} once `ms` have passed
 */
export function withDeadline<T>(work: Promise<T>, ms: number, message: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const end = () => reject(new DeadlineError(`${message} (${ms} ms)`))
    const timer = setTimeout(() => setImmediate(end), ms)
    work.then(
      (result) => {
        clearTimeout(timer)
        resolve(result)
      },
      (error) => {
        clearTimeout(timer)
        reject(error)
      },
    )
  })
}
