/** Work that was not done in time; whether it will be is unknown. */
export class DeadlineError extends Error {
  override name = 'DeadlineError'
}

/**
 * The promise, or an error once `ms` have passed without its being settled. The work itself goes on.
 *
 * @throws {DeadlineError}
 */
export function withDeadline<T>(work: Promise<T>, ms: number, message: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new DeadlineError(`${message} (${ms} ms)`)), ms)
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
