import { setTimeout as sleep } from 'node:timers/promises'
import { DrizzleQueryError } from 'drizzle-orm'
import { drizzle, type PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import type { Logger } from 'pino'
import postgres from 'postgres'
import { DeadlineError, withDeadline } from '../deadline.ts'
import { StartError } from '../start-error.ts'

export type Database = PostgresJsDatabase & { $client: postgres.Sql }

/** The connections to Postgres. */
export interface PostgresPool {
  /**
   * Runs one query on the connections of the moment, and once more if its connection was cut: so
   * the query must be one that may run twice.
   *
   * @throws {DeadlineError} if it is not answered within `QUERY_DEADLINE_MS`; what became of it is
   * then unknown, as after a lost connection
   * @throws {PoolFullError} at once, if there are `MAX_QUERIES_AT_WORK` already
   * @throws Postgres's own error, rather than drizzle's, which repeats the query's values
   */
  run<T>(query: (database: Database) => Promise<T>): Promise<T>
  /** What it has to do now, and when Postgres last answered by `performance.now()`. */
  load(): { queries: number; limit: number; answeredAt: number }
  /** Ends the connections; queries at work have `CLOSE_TIMEOUT_SECONDS` to finish. */
  close(): Promise<void>
}

/** More connections do not commit faster: the pool waits less than Postgres would. */
const MAX_CONNECTIONS = 10
const CLOSE_TIMEOUT_SECONDS = 2

/** A request asks at most three times: all together, it is answered within 10 s. */
const QUERY_DEADLINE_MS = 3_000

/**
 * Queries at work and in the queue for a connection, together: what Postgres does in about half a
 * second. More would only wait longer, in memory.
 */
const MAX_QUERIES_AT_WORK = 1_000

/** A busy Postgres takes a while to greet ten connections at once. */
const CONNECT_TIMEOUT_SECONDS = 2
/** Until a lost connection is tried anew, however long Postgres was gone. */
const RECONNECT_DELAY_SECONDS = 0.2

/**
 * The driver can leave queries pending for ever on connections that were killed, and then the pool
 * never heals. So many queries in a row that were not answered, with no answer between them, mean
 * that: the inserts of twice `QUERY_DEADLINE_MS`, as two are on their way at a time.
 */
const FAILURES_BEFORE_REPLACEMENT = 4
const MIN_REPLACEMENT_INTERVAL_MS = 1_000

/** The pool has as much to do as it can finish in time. */
export class PoolFullError extends Error {
  override name = 'PoolFullError'
  readonly statusCode = 503
}

/** What all our connections have in common. */
const CONNECTION_OPTIONS = {
  connect_timeout: CONNECT_TIMEOUT_SECONDS,
  // By default the delay grows to 20 s, for which the service would outlast Postgres's absence.
  backoff: () => RECONNECT_DELAY_SECONDS,
  // By default the driver looks up array types on every new connection, and nobody handles the
  // rejection when that connection is lost meanwhile: it would end the process. We use no arrays.
  fetch_types: false,
  onnotice: () => {},
}

/**
 * One query at a time on each connection. When a prepared statement has become invalid, the driver
 * (3.4.9) prepares it again on a connection that still takes further queries, and the results of those
 * queries are swapped. (The driver's types do not have this option.)
 */
const ONE_QUERY_AT_A_TIME = { max_pipeline: 0 }

/** Opens a pool that connects on demand. @param url `postgres://…` */
export function openPostgres(url: string, log: Logger): PostgresPool {
  let queriesAtWork = 0
  let answeredAt = Number.NEGATIVE_INFINITY
  let failuresInARow = 0
  let replacedAt = performance.now()
  let { client, database } = connect(url)

  function replace(): void {
    const old = client
    ;({ client, database } = connect(url))
    failuresInARow = 0
    replacedAt = performance.now()
    log.warn('Postgres did not answer many times in a row; its connections are replaced')
    old.end({ timeout: 0 }).catch(() => {})
  }

  function note(error: unknown): void {
    failuresInARow = isUnanswered(error) ? failuresInARow + 1 : 0
    if (failuresInARow < FAILURES_BEFORE_REPLACEMENT) return
    if (performance.now() - replacedAt >= MIN_REPLACEMENT_INTERVAL_MS) replace()
  }

  async function attempt<T>(query: (database: Database) => Promise<T>, ms: number): Promise<T> {
    const used = client
    try {
      const answer = query(database)
      const result = await withDeadline(answer, ms, 'Postgres did not answer')
      answeredAt = performance.now()
      if (used === client) failuresInARow = 0
      return result
    } catch (error) {
      const cause = error instanceof DrizzleQueryError ? error.cause : error
      if (used === client) note(cause)
      throw cause
    }
  }

  return {
    async run(query) {
      if (queriesAtWork >= MAX_QUERIES_AT_WORK) throw new PoolFullError('the queue is full')
      queriesAtWork++
      const endsAt = performance.now() + QUERY_DEADLINE_MS
      try {
        return await attempt(query, QUERY_DEADLINE_MS).catch((error) => {
          if (isCut(error)) return attempt(query, endsAt - performance.now())
          throw error
        })
      } finally {
        queriesAtWork--
      }
    },
    load: () => ({ queries: queriesAtWork, limit: MAX_QUERIES_AT_WORK, answeredAt }),
    close: () => client.end({ timeout: CLOSE_TIMEOUT_SECONDS }),
  }
}

function connect(url: string) {
  const client = postgres(url, {
    max: MAX_CONNECTIONS,
    ...ONE_QUERY_AT_A_TIME,
    connection: { application_name: 'order-once' },
    ...CONNECTION_OPTIONS,
  })
  return { client, database: drizzle(client) }
}

/** Whether nothing came back, not even an error of Postgres's own. */
function isUnanswered(error: unknown): boolean {
  if (error instanceof postgres.PostgresError) return false
  return error instanceof DeadlineError || typeof (error as { code?: unknown }).code === 'string'
}

/** Whether the connection was lost on the way, as when a server restarts (SQLSTATE class 57P). */
function isCut(error: unknown): boolean {
  if (error instanceof postgres.PostgresError) return error.code.startsWith('57P')
  return isUnanswered(error) && !(error instanceof DeadlineError)
}

/** How long a database that was started together with the service may take to answer. */
const START_TIMEOUT_MS = 15_000
const RETRY_MS = 250

/** What Postgres says while it starts or stops, and what its port does before it listens. */
const STARTING = [
  ...['57P01', '57P02', '57P03', '53300'],
  ...['ECONNRESET', 'EPIPE', 'CONNECTION_CLOSED', 'CONNECTION_DESTROYED', 'CONNECT_TIMEOUT'],
]

/**
 * Waits for a Postgres that may be starting.
 *
 * @param options `started`: a port on which nothing listens is taken for a Postgres that is absent
 * @throws {StartError} if it refuses us, or does not answer within `START_TIMEOUT_MS`
 */
export async function untilPostgresAnswers(url: string, { started = false } = {}): Promise<void> {
  const passing = started ? STARTING : [...STARTING, 'ECONNREFUSED']
  try {
    await duringStart(
      url,
      (client) => withDeadline(client`select 1`, QUERY_DEADLINE_MS, 'it says nothing'),
      passing,
    )
  } catch (error) {
    const { code, message } = error as Error & { code?: string }
    throw new StartError(`Postgres at ${placeOf(url)} does not answer: ${message || code}`)
  }
}

/**
 * Runs a job in a session of its own, and again if Postgres is starting or stopping meanwhile.
 *
 * @throws what the job throws otherwise, or still throws after `START_TIMEOUT_MS`
 */
export async function duringStart(
  url: string,
  job: (client: postgres.Sql) => Promise<unknown>,
  passing = [...STARTING, 'ECONNREFUSED'],
): Promise<void> {
  const giveUpAt = performance.now() + START_TIMEOUT_MS
  while (true) {
    try {
      await inSession(url, job)
      return
    } catch (error) {
      const cause = error instanceof DrizzleQueryError ? error.cause : error
      const { code = '' } = cause as { code?: string }
      const isPassing =
        passing.includes(code) ||
        cause instanceof SessionLostError ||
        cause instanceof DeadlineError
      if (!isPassing || performance.now() > giveUpAt) throw cause
      await sleep(RETRY_MS)
    }
  }
}

/** A session whose connection is gone; what became of its job is unknown. */
class SessionLostError extends Error {
  override name = 'SessionLostError'
}

/**
 * Runs a job, whose locks and statements belong together, on one connection of its own.
 *
 * @throws {SessionLostError} if the connection is lost, whatever became of the job: the driver can leave a
 * transaction pending for ever whose connection is gone
 */
export async function inSession<T>(
  url: string,
  job: (client: postgres.Sql) => Promise<T>,
): Promise<T> {
  let onclose = () => {}
  const lost = new Promise<never>((_, reject) => {
    onclose = () => reject(new SessionLostError('the connection to Postgres was lost'))
  })
  lost.catch(() => {}) // the session's own end, too
  const client = postgres(url, { max: 1, onclose, ...CONNECTION_OPTIONS })
  try {
    return await Promise.race([job(client), lost])
  } finally {
    await client.end({ timeout: 0 })
  }
}

/** Host, port and database of a store's URL, without its user and password. */
export function placeOf(url: string): string {
  const { host, pathname } = new URL(url)
  return `${host}${pathname}`
}
