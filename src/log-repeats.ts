/** Keeps a fault that concerns many requests from filling the log with the same error. */
import { type LogFn, type Logger, pino } from 'pino'

/** Often enough to see that a fault goes on; 12 000 errors in a minute are two lines. */
const INTERVAL_MS = 60_000

/** An error that was logged, and how often it has occurred since. */
interface LoggedError {
  repeats: number
  /** logs that number */
  end(): void
}

/**
 * Creates a function for pino's `hooks.logMethod`. Of identical errors at level `error`, it logs the first,
 * and one line with the number of the others: at the end of the interval, or when the process exits. Errors
 * are identical if they have the same message in the log, and the same class, code and place.
 */
export function createRepeatCounter() {
  const logged = new Map<string, LoggedError>()
  process.once('exit', () => {
    for (const { end } of logged.values()) end()
  })

  return function logMethod(
    this: Logger,
    args: Parameters<LogFn>,
    log: LogFn,
    level: number,
  ): void {
    const id = level === pino.levels.values.error ? identifyError(args) : undefined
    const before = id && logged.get(id)
    if (before) {
      before.repeats++
      return
    }
    log.apply(this, args)
    if (!id) return
    const error: LoggedError = {
      repeats: 0,
      end: () => {
        logged.delete(id)
        const { repeats } = error
        if (repeats > 0) log.call(this, { repeats }, `${args[1]}: ${repeats} more identical errors`)
      },
    }
    logged.set(id, error)
    setTimeout(error.end, INTERVAL_MS).unref()
  }
}

/** @returns undefined if the arguments of the log function have no error */
function identifyError([object, message]: Parameters<LogFn>): string | undefined {
  const { err } = Object(object) as { err?: unknown }
  if (!(err instanceof Error)) return undefined
  const place = err.stack?.match(/^ +at .*$/m)?.[0]
  const { code } = err as NodeJS.ErrnoException // all errors of a database come from one place
  return `${message} ${err.name} ${code} ${place}`
}
