/** Distinguishes failures of the store, which are expected, from bugs. */
import type { FastifyBaseLogger } from 'fastify'
import { NotSentError } from './batcher.ts'
import { ForeignRecordError } from './stores/store.ts'

/** The classes of errors that the language itself throws, and Node for wrong arguments. */
const BUGS = [TypeError, ReferenceError, RangeError, SyntaxError, EvalError, URIError]

/**
 * Whether the error shows a bug in the store or its driver, not that the store is down or slow. `fetch`
 * reports a lost connection by a TypeError, too: that one has a cause.
 */
export function isBug(error: unknown): boolean {
  if (!(error instanceof Error)) return true
  return error.cause === undefined && BUGS.some((type) => error instanceof type)
}

/** Reports an error that a call to the store has thrown. */
export type ReportStoreError = (log: FastifyBaseLogger, error: unknown, message: string) => void

/**
 * Creates a function that logs bugs at level error, and counts and logs failures of the store.
 *
 * @param level of the log lines on failures
 */
export function createStoreErrorReport(
  level: 'debug' | 'warn',
  onStoreFailure: () => void = () => {},
): ReportStoreError {
  return (log, error, message) => {
    if (isBug(error)) {
      log.error({ err: error }, `${message}: there is a bug in the store`)
      return
    }
    if (!isExpected(error)) onStoreFailure()
    log[level]({ err: error }, message)
  }
}

/** The store works: it has refused the call, or had no need to send it. */
const isExpected = (error: unknown) =>
  error instanceof ForeignRecordError || error instanceof NotSentError
