/** The connections to Postgres that requests share. */
import { withDeadline } from '@order-once/idempotency/batching'
import type { FastifyBaseLogger } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import postgres from 'postgres'
import { POSTGRES_CLOSE_TIMEOUT_MS, QUERY_TIMEOUT_MS } from '../limits.ts'
import { CONNECTION_OPTIONS, isConnectionLost, isNoResponse } from './postgres-connection.ts'

declare module 'fastify' {
  interface FastifyInstance {
    postgres: PostgresPool
  }
}

export interface PostgresPool {
  /**
   * Runs one statement, prepared, and a second time if its connection was lost: so it must be one that
   * may run twice.
   *
   * @param values for `$1`, `$2`, …
   * @returns the rows, by column name
   * @throws {DeadlineError} if it does not end within `QUERY_TIMEOUT_MS`; whether it took effect is then
   * unknown, as after a lost connection
   * @throws {PoolFullError} at once, if `MAX_PENDING_QUERIES` are pending
   * @throws {postgres.PostgresError} what Postgres refuses
   */
  query(text: string, values?: unknown[]): Promise<postgres.Row[]>
  /** How many queries are pending, how many may be, and when Postgres last responded, by `performance.now()`. */
  load(): { pending: number; limit: number; respondedAt: number }
  /** Closes the connections; pending queries have `POSTGRES_CLOSE_TIMEOUT_MS` to end. */
  close(): Promise<void>
}

/** More connections do not commit faster. */
const MAX_CONNECTIONS = 10

/**
 * Queries that run or wait for a connection, together: what Postgres does in about half a second. More
 * would only wait longer, in memory.
 */
const MAX_PENDING_QUERIES = 1_000

/**
 * The driver can leave queries pending for ever on connections that were killed, and the pool does not
 * recover. So many queries in a row without a response mean that: the inserts of twice
 * `QUERY_TIMEOUT_MS`, as two are in flight at a time.
 */
const FAILURES_BEFORE_REPLACEMENT = 4
const MIN_REPLACEMENT_INTERVAL_MS = 1_000

/**
 * One query at a time on each connection. When a prepared statement has become invalid, the driver
 * (3.4.9) prepares it again on a connection that still takes further queries, and the results of those
 * queries are swapped. (The driver's types do not have this option.)
 */
const ONE_QUERY_AT_A_TIME = { max_pipeline: 0 }

/** The pool has as many queries as can end in time. */
export class PoolFullError extends Error {
  override name = 'PoolFullError'
  readonly statusCode = 503
}

/** Opens a pool that connects on demand. @param url `postgres://…` */
export function openPostgresPool(url: string, log: FastifyBaseLogger): PostgresPool {
  let pending = 0
  let respondedAt = Number.NEGATIVE_INFINITY
  let failuresInARow = 0
  let replacedAt = performance.now()
  let client = connect(url)

  function replaceClient(): void {
    const old = client
    client = connect(url)
    failuresInARow = 0
    replacedAt = performance.now()
    log.warn(
      `Postgres did not respond to ${FAILURES_BEFORE_REPLACEMENT} queries in a row; replacing the connections`,
    )
    old.end({ timeout: 0 }).catch(() => {})
  }

  function recordFailure(error: unknown): void {
    failuresInARow = isNoResponse(error) ? failuresInARow + 1 : 0
    if (failuresInARow < FAILURES_BEFORE_REPLACEMENT) return
    if (performance.now() - replacedAt >= MIN_REPLACEMENT_INTERVAL_MS) replaceClient()
  }

  async function attempt(text: string, values: unknown[], ms: number): Promise<postgres.Row[]> {
    const used = client
    try {
      const query = used.unsafe(text, values as never[], { prepare: true })
      const rows = await withDeadline(query, ms, 'Postgres did not respond')
      respondedAt = performance.now()
      if (used === client) failuresInARow = 0
      return rows
    } catch (error) {
      if (used === client) recordFailure(error)
      throw error
    }
  }

  return {
    async query(text, values = []) {
      if (pending >= MAX_PENDING_QUERIES) throw new PoolFullError('too many queries are pending')
      pending++
      const endsAt = performance.now() + QUERY_TIMEOUT_MS
      try {
        return await attempt(text, values, QUERY_TIMEOUT_MS).catch((error) => {
          if (isConnectionLost(error)) return attempt(text, values, endsAt - performance.now())
          throw error
        })
      } finally {
        pending--
      }
    },
    load: () => ({ pending, limit: MAX_PENDING_QUERIES, respondedAt }),
    close: () => client.end({ timeout: POSTGRES_CLOSE_TIMEOUT_MS / 1000 }),
  }
}

function connect(url: string): postgres.Sql {
  return postgres(url, {
    max: MAX_CONNECTIONS,
    connection: { application_name: 'order-once' },
    ...ONE_QUERY_AT_A_TIME,
    ...CONNECTION_OPTIONS,
  })
}

/** Decorates the app with `postgres`, a pool that closes with it. */
export const postgresPool = fastifyPlugin(
  async (app) => {
    const pool = openPostgresPool(app.stores.databaseUrl, app.log)
    app.decorate('postgres', pool)
    app.addHook('onClose', () => pool.close())
  },
  { name: 'postgres', dependencies: ['stores'] },
)
