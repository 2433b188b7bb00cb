/** Dedicated connections to Postgres: for start-up, migrations, the clean-up, reconciliation and the failover watch. */
import { setTimeout as sleep } from 'node:timers/promises'
import { DeadlineError, withDeadline } from '@order-once/idempotency/batching'
import type { FastifyBaseLogger } from 'fastify'
import type postgres from 'postgres'
import { getErrorCode } from '../error-code.ts'
import { QUERY_TIMEOUT_MS } from '../limits.ts'
import { StartError } from '../start-error.ts'
import { urlWithoutCredentials } from './postgres-connection.ts'
import { createPrimaryClient, NO_PRIMARY } from './postgres-primary.ts'

/** How long a database that was started together with the service may take to accept connections. */
const START_TIMEOUT_MS = 15_000
const RETRY_INTERVAL_MS = 250

/** What a start waits for longer than this is worth a log line. */
export const NOTICE_AFTER_MS = 2_000

/** Errors of a Postgres that is starting or stopping, and of its port before it listens. */
const STARTING_CODES = [
  ...['57P01', '57P02', '57P03', '53300', NO_PRIMARY],
  ...['ECONNRESET', 'EPIPE', 'CONNECTION_CLOSED', 'CONNECTION_DESTROYED', 'CONNECT_TIMEOUT'],
]
const STARTING_OR_ABSENT_CODES = [...STARTING_CODES, 'ECONNREFUSED']

/**
 * Waits for a Postgres that may be starting.
 *
 * @param options `mustListen`: a port on which nothing listens is an absent Postgres, not a starting one
 * @throws {StartError} if it refuses the connection, or does not respond within `START_TIMEOUT_MS`
 */
export async function waitForPostgres(
  url: string,
  log: FastifyBaseLogger,
  { mustListen = false } = {},
): Promise<void> {
  const at = urlWithoutCredentials(url)
  const notice = setTimeout(() => log.info(`waiting for Postgres at ${at}`), NOTICE_AFTER_MS)
  try {
    await retryWhileStarting(
      url,
      (client) => withDeadline(client`select 1`, QUERY_TIMEOUT_MS, 'no response to a query'),
      mustListen ? STARTING_CODES : STARTING_OR_ABSENT_CODES,
    )
  } catch (error) {
    const reason = (error instanceof Error && error.message) || getErrorCode(error)
    throw new StartError(`Postgres at ${at} cannot be used: ${reason}`)
  } finally {
    clearTimeout(notice)
  }
}

/**
 * Runs a job on a dedicated connection, and again while Postgres is starting or stopping.
 *
 * @param retryableCodes the errors after which it runs again
 * @throws {StartError} if `sslmode` requires TLS and the server offers none
 * @throws what the job throws otherwise, or still throws after `START_TIMEOUT_MS`
 */
export async function retryWhileStarting(
  url: string,
  job: (client: postgres.Sql) => Promise<unknown>,
  retryableCodes = STARTING_OR_ABSENT_CODES,
): Promise<void> {
  const timeoutAt = performance.now() + START_TIMEOUT_MS
  while (true) {
    try {
      await withDedicatedConnection(url, job)
      return
    } catch (error) {
      if (isTlsRefused(error))
        throw new StartError('sslmode requires TLS, but the server offers none')
      const isRetryable =
        retryableCodes.includes(getErrorCode(error)) ||
        error instanceof SessionLostError ||
        error instanceof DeadlineError
      if (!isRetryable || performance.now() > timeoutAt) throw error
      await sleep(RETRY_INTERVAL_MS)
    }
  }
}

/** Whether the connection ended in place of a TLS handshake. Node.js has no code of its own for it. */
const isTlsRefused = (error: unknown) =>
  error instanceof Error && error.message.includes('before secure TLS connection was established')

/** A session whose connection is lost; whether its job took effect is unknown. */
class SessionLostError extends Error {
  override name = 'SessionLostError'
}

/**
 * Runs a job, whose locks and statements belong together, on one connection of its own to the primary.
 *
 * @throws {DatabaseUnavailableError} if the URL has several hosts, and none is the primary
 * @throws {SessionLostError} if the connection is lost, whatever the job does: the driver can leave a
 * transaction pending for ever whose connection is lost
 */
export async function withDedicatedConnection<T>(
  url: string,
  job: (client: postgres.Sql) => Promise<T>,
): Promise<T> {
  let onclose = () => {}
  const lost = new Promise<never>((_, reject) => {
    onclose = () => reject(new SessionLostError('the connection to Postgres was lost'))
  })
  lost.catch(() => {}) // the session's own end closes the connection, too
  const client = await createPrimaryClient(url, { onclose })
  try {
    return await Promise.race([job(client), lost])
  } finally {
    await client.end({ timeout: 0 })
  }
}
