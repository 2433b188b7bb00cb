/** Work that was not done in time; whether it will be is unknown. */
export class DeadlineError extends Error {
  override name = 'DeadlineError'
}

/**
 * The promise, or an error once `ms` have passed without its being settled. The work itself goes on.
 *
 * @throws {DeadlineError}
 */
export async function withDeadline<T>(work: Promise<T>, ms: number, message: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new DeadlineError(`${message} (${ms} ms)`)), ms)
  })
  try {
    return await Promise.race([work, deadline])
  } finally {
    clearTimeout(timer)
  }
}
