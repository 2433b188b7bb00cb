/** What all connections to Postgres have in common. */
import { DeadlineError } from '@order-once/idempotency/batching'
import postgres from 'postgres'
import { CONNECT_TIMEOUT_MS } from '../limits.ts'

/** A short, constant delay: by default it grows to 20 s, and would outlast Postgres's absence. */
const RECONNECT_DELAY_SECONDS = 0.2

export const CONNECTION_OPTIONS = {
  connect_timeout: CONNECT_TIMEOUT_MS / 1000,
  backoff: () => RECONNECT_DELAY_SECONDS,
  // By default the driver looks up array types on each new connection; when that connection is lost, the
  // rejection is unhandled and would end the process. No query here uses arrays.
  fetch_types: false,
  onnotice: () => {},
}

/** The code of an error of Postgres (SQLSTATE), of the driver or of Node; '' if there is none. */
export function getErrorCode(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string'
    ? error.code
    : ''
}

/** Whether nothing came back, not even an error of Postgres itself. */
export function isNoResponse(error: unknown): boolean {
  if (error instanceof postgres.PostgresError) return false
  return error instanceof DeadlineError || getErrorCode(error) !== ''
}

/** Whether the connection was lost during the query, as when a server restarts (SQLSTATE class 57P). */
export function isConnectionLost(error: unknown): boolean {
  if (error instanceof postgres.PostgresError) return error.code.startsWith('57P')
  return isNoResponse(error) && !(error instanceof DeadlineError)
}

/** Host, port and database of a store's URL. */
export function urlWithoutCredentials(url: string): string {
  const { host, pathname } = new URL(url)
  return `${host}${pathname}`
}
