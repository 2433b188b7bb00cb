/** Errors that mean: Postgres cannot create orders now, but may again later. */
import postgres from 'postgres'
import { isNoResponse } from './postgres-connection.ts'

/** Postgres is gone, silent, read-only, full or not as the service needs it. */
export class DatabaseUnavailableError extends Error {
  override name = 'DatabaseUnavailableError'

  static from(cause: unknown): DatabaseUnavailableError {
    if (cause instanceof DatabaseUnavailableError) return cause
    const reason = cause instanceof Error ? cause.message : String(cause)
    return new DatabaseUnavailableError(reason, { cause })
  }
}

/** SQLSTATE classes that concern the server or the connection, not the statement. */
const UNAVAILABLE_CLASSES = [
  '08', // connection lost or refused
  '28', // the password or the role is refused
  '40', // conflicts with other transactions, more often than they are retried
  '53', // disk full, out of memory, too many connections
  '55', // a lock or an object is not available
  '57', // shut down, canceled by statement_timeout
  '58', // system error, such as I/O
]

/** Read-only transaction; no rights; no such database, schema, table, column or unique constraint. */
const UNAVAILABLE_CODES = ['25006', '42501', '3D000', '3F000', '42P01', '42703', '42P10']

/** SQLSTATEs of the server or the connection, whatever the statement was. */
const SERVER_ERROR = /^(08|25006|28|3D|53|57P|58)/

/** Whether any other statement would probably fail, too. */
export function concernsServer(error: unknown): boolean {
  if (error instanceof postgres.PostgresError) return SERVER_ERROR.test(error.code)
  return error instanceof DatabaseUnavailableError || isNoResponse(error)
}

/** Whether the error is the server's state rather than a fault of the statement or its values. */
export function isUnavailable(error: unknown): boolean {
  if (error instanceof postgres.PostgresError) {
    const { code } = error
    return UNAVAILABLE_CLASSES.includes(code.slice(0, 2)) || UNAVAILABLE_CODES.includes(code)
  }
  return error instanceof DatabaseUnavailableError || isNoResponse(error)
}
