/** The connections to Postgres that requests share. */
import { DeadlineError, withDeadline } from '@order-once/idempotency/batching'
import type { FastifyBaseLogger } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import postgres from 'postgres'
import { getErrorCode } from '../error-code.ts'
import {
  CONNECT_TIMEOUT_MS,
  POSTGRES_CLOSE_TIMEOUT_MS,
  QUERY_TIMEOUT_MS,
  STATEMENT_TIMEOUT_MS,
} from '../limits.ts'
import { concernsServer, DatabaseUnavailableError, isUnavailable } from './database-unavailable.ts'
import { createClient, isConnectionLost } from './postgres-connection.ts'
import { followPrimary } from './postgres-primary.ts'
import { type DatabaseHost, parseDatabaseUrl } from './postgres-url.ts'

declare module 'fastify' {
  interface FastifyInstance {
    postgres: PostgresPool
  }
}

export interface PostgresPool {
  /**
   * Runs one prepared statement. If its connection was lost or it conflicted with another transaction, runs it
   * again, up to three times in all: it must be one that may run several times.
   *
   * @param values for `$1`, `$2`, …
   * @param options `isWritten`: for a write, whether its rows show that it has written. A write that fails
   * counts as a failure of writing, until one has written
   * @returns the rows, by column name
   * @throws {DatabaseUnavailableError} if Postgres does not respond within `QUERY_TIMEOUT_MS`, is lost,
   * read-only, full or without our tables; whether the statement took effect may then be unknown
   * @throws {PoolFullError} at once, if `MAX_PENDING_QUERIES` are pending
   * @throws {postgres.PostgresError} for what is wrong with the statement or its values
   */
  query(
    text: string,
    values?: unknown[],
    options?: { isWritten?: (rows: postgres.Row[]) => boolean },
  ): Promise<postgres.Row[]>
  load(): PoolLoad
  /** Closes the connections; pending queries have `POSTGRES_CLOSE_TIMEOUT_MS` to end. */
  close(): Promise<void>
}

interface PoolLoad {
  /** queries that run or wait for a connection */
  pending: number
  /** how many may be pending */
  limit: number
  /** when a write last succeeded, by `performance.now()` */
  wroteAt: number
  /** whether a write has failed since then */
  hasFailedToWrite: boolean
}

/** More connections do not commit faster. */
const MAX_CONNECTIONS = 10

/**
 * Connections together with backends of closed connections that have not ended: a commit that waits for a
 * synchronous standby goes on without its client.
 */
const MAX_BACKENDS = 20

/**
 * Queries that run or wait for a connection, together: what Postgres does in about half a second. More
 * would only wait longer, in memory.
 */
const MAX_PENDING_QUERIES = 1_000

/** A lost connection, a deadlock or a serialization failure rarely happens twice to one query. */
const MAX_ATTEMPTS = 3

/** SQLSTATE of a serialization failure and of a deadlock: the same statement may succeed now. */
const CONFLICT_CODES = ['40001', '40P01']

/** The server is a standby or read-only now: its connections are of no use any more. */
const READ_ONLY = '25006'

/** The role may have been created again with its rights: sessions of the old one keep its id. */
const NO_RIGHTS = '42501'

/** A pooler does not accept a parameter of the startup packet (protocol violation). */
const STARTUP_REFUSED = '08P01'

/** The pool has as many queries as can end in time. */
export class PoolFullError extends Error {
  override name = 'PoolFullError'
  readonly statusCode = 503
}

/** A client of the driver with one connection, on which one query runs at a time. */
interface Connection {
  client: postgres.Sql
  /** the process id of its backend; of a pooler, that of one of its own connections */
  pid: number
  /** whether it is not to be used again: closed, or of a server that stopped being the primary */
  isRetired: boolean
}

interface Waiter {
  resolve: (connection: Connection) => void
  reject: (error: unknown) => void
}

/**
 * Opens a pool that connects on demand, to a server that accepts writes: of several hosts, to the primary.
 * When another host becomes the primary, all connections to the last one are closed, and its queries run
 * again on the new one.
 *
 * It runs one query at a time on each connection: the driver (3.4.9) swaps results between queries of one
 * connection when it prepares a statement again. A connection whose query did not end in time is closed,
 * and never used again.
 *
 * @param url `postgres://…`
 */
export function openPostgresPool(url: string, log: FastifyBaseLogger): PostgresPool {
  const target = parseDatabaseUrl(url)
  const primary = followPrimary(target, log, () => {
    moves++
    abandoned = [] // backends of the last primary
    retireAll()
  })
  /** how often another host has become the primary */
  let moves = 0
  /** those that are being opened */
  const opening = new Set<Connection>()
  const connections = new Set<Connection>()
  const idle: Connection[] = []
  /** process ids of backends whose connection was closed before they had responded */
  let abandoned: number[] = []
  /** queries without a connection, oldest first */
  const waiters = new Set<Waiter>()
  let connecting = 0
  let hasFailedToConnect = false
  // A pooler refuses it, or would give it to the sessions of others.
  let sendsStatementTimeout = !target.usesPooler
  let isClosing = false
  let isUp = true
  let pending = 0
  let wroteAt = Number.NEGATIVE_INFINITY
  let hasFailedToWrite = false

  async function runOnce(text: string, values: unknown[], endsAt: number): Promise<postgres.Row[]> {
    const connection = await acquire(endsAt)
    // A value of any type is sent as text; Postgres gives it the type of its parameter.
    const query = connection.client.unsafe(text, values as postgres.ParameterOrJSON<never>[], {
      prepare: true,
    })
    try {
      const rows = await withDeadline(query, remainingMs(endsAt), 'Postgres did not respond')
      release(connection)
      return rows
    } catch (error) {
      const code = getErrorCode(error)
      if (code === READ_ONLY) retireAll()
      if (error instanceof DeadlineError && !target.usesPooler) abandoned.push(connection.pid)
      if (
        !(error instanceof postgres.PostgresError) ||
        code.startsWith('57P') ||
        code === NO_RIGHTS
      ) {
        retire(connection)
      }
      release(connection)
      throw error
    }
  }

  async function acquire(endsAt: number): Promise<Connection> {
    const connection = idle.pop()
    if (connection) return connection
    let stopWaiting = () => {}
    const waiting = new Promise<Connection>((resolve, reject) => {
      const waiter = { resolve, reject }
      waiters.add(waiter)
      stopWaiting = () => waiters.delete(waiter)
      connectForWaiters()
    })
    try {
      return await withDeadline(waiting, remainingMs(endsAt), 'no connection to Postgres is free')
    } catch (error) {
      // Postgres responds, but not to so many queries in time.
      if (error instanceof DeadlineError && connections.size > 0) {
        throw new PoolFullError('all connections to Postgres are in use')
      }
      throw error
    } finally {
      stopWaiting()
    }
  }

  function release(connection: Connection): void {
    if (connection.isRetired) {
      connectForWaiters()
      return
    }
    const [waiter] = waiters
    if (waiter) {
      waiters.delete(waiter)
      waiter.resolve(connection)
    } else idle.push(connection)
  }

  function retire(connection: Connection): void {
    if (connection.isRetired) return
    connection.isRetired = true
    opening.delete(connection)
    connections.delete(connection)
    const index = idle.indexOf(connection)
    if (index >= 0) idle.splice(index, 1)
    connection.client.end({ timeout: 0 }).catch(() => {})
  }

  function retireAll(): void {
    for (const connection of [...opening, ...connections]) retire(connection)
  }

  /**
   * After a failure, one connection at a time: a server that hangs must not collect more of them. At the
   * limit of backends, one connection as well: it finds out which abandoned backends have ended (`connect`).
   */
  function connectForWaiters(): void {
    const maxConnecting = hasFailedToConnect ? 1 : MAX_CONNECTIONS
    const maxConnections = Math.min(MAX_CONNECTIONS, Math.max(1, MAX_BACKENDS - abandoned.length))
    while (
      !isClosing &&
      connecting < Math.min(waiters.size, maxConnecting) &&
      connections.size + connecting < maxConnections
    ) {
      connecting++
      void connectOne()
    }
  }

  async function connectOne(): Promise<void> {
    const movesBefore = moves
    try {
      const connection = await connect(sendsStatementTimeout)
      // `close` closes only connections that were open when it was called.
      if (isClosing) retire(connection)
      if (opening.delete(connection)) connections.add(connection)
      hasFailedToConnect = false
      connecting--
      release(connection)
    } catch (error) {
      connecting--
      // It was closed, since its server is not the primary any more.
      if (moves !== movesBefore) return connectForWaiters()
      hasFailedToConnect = true
      // Otherwise a connection that is in use now will serve them.
      if (connections.size === 0) rejectWaiters(error)
    }
  }

  function rejectWaiters(error: unknown): void {
    for (const { reject } of waiters) reject(error)
    waiters.clear()
  }

  /** @throws if the server does not respond, refuses us, or does not accept writes */
  async function connect(withStatementTimeout: boolean): Promise<Connection> {
    const host = await primary.find()
    const connection: Connection = {
      client: createPoolClient(host, withStatementTimeout, () => retire(connection)),
      pid: 0,
      isRetired: false,
    }
    opening.add(connection)
    try {
      const known = JSON.stringify(abandoned)
      const check = connection.client`
        select pg_backend_pid() as pid,
               pg_is_in_recovery() or current_setting('transaction_read_only')::bool as is_read_only,
               array(select json_array_elements_text(${known}::text::json)::int
                     except select pid from pg_catalog.pg_stat_activity)::text as ended`
      const [row] = await withDeadline(check, CONNECT_TIMEOUT_MS, 'Postgres did not respond')
      if (row?.is_read_only) throw new DatabaseUnavailableError('Postgres is read-only')
      connection.pid = Number(row?.pid)
      const ended = new Set(String(row?.ended).match(/\d+/g)?.map(Number)) // an array as text
      abandoned = abandoned.filter((pid) => !ended.has(pid))
      if (abandoned.length >= MAX_BACKENDS) {
        throw new DatabaseUnavailableError(
          `${abandoned.length} statements have not ended: see pg_stat_activity`,
        )
      }
      return connection
    } catch (error) {
      retire(connection)
      if (withStatementTimeout && getErrorCode(error) === STARTUP_REFUSED) {
        sendsStatementTimeout = false
        return connect(false)
      }
      throw error
    }
  }

  function createPoolClient(
    host: DatabaseHost,
    withStatementTimeout: boolean,
    onclose: () => void,
  ): postgres.Sql {
    // A statement that waits for a lock ends by itself, whatever happens to its connection. It is never
    // canceled by a request: that would end the wait of a commit for a synchronous standby, and the next
    // repeat would acknowledge an order that only the primary has.
    const limit = withStatementTimeout && { statement_timeout: STATEMENT_TIMEOUT_MS }
    return createClient(target, host, {
      onclose,
      connection: { ...target.startupParameters, ...limit },
    })
  }

  function logStateChange(isUpNow: boolean, error?: unknown): void {
    if (isUpNow === isUp || isClosing) return
    isUp = isUpNow
    if (isUp) log.info('Postgres is back')
    else log.error({ err: error }, 'Postgres is unavailable; orders are refused with 503')
  }

  return {
    async query(text, values = [], { isWritten } = {}) {
      if (pending >= MAX_PENDING_QUERIES) throw new PoolFullError('too many queries are pending')
      pending++
      const endsAt = performance.now() + QUERY_TIMEOUT_MS
      try {
        for (let attempt = 1; ; attempt++) {
          try {
            const rows = await runOnce(text, values, endsAt)
            if (isWritten?.(rows)) {
              wroteAt = performance.now()
              hasFailedToWrite = false
            }
            if (!hasFailedToWrite) logStateChange(true)
            return rows
          } catch (error) {
            const mayRepeat =
              isConnectionLost(error) || CONFLICT_CODES.includes(getErrorCode(error))
            if (mayRepeat && attempt < MAX_ATTEMPTS && performance.now() < endsAt) continue
            if (isWritten) hasFailedToWrite = true
            throw error
          }
        }
      } catch (error) {
        if (!isUnavailable(error)) throw error
        // Other tables can be gone or locked without an effect on orders.
        if (isWritten || concernsServer(error)) logStateChange(false, error)
        throw DatabaseUnavailableError.from(error)
      } finally {
        pending--
      }
    },

    load: () => ({ pending, limit: MAX_PENDING_QUERIES, wroteAt, hasFailedToWrite }),

    async close() {
      isClosing = true
      primary.close()
      const timeout = POSTGRES_CLOSE_TIMEOUT_MS / 1000
      await Promise.all([...connections].map(({ client }) => client.end({ timeout })))
      rejectWaiters(new Error('the pool is closed'))
    },
  }
}

/** At least 1: a timer needs a time, and an error message a sensible one. */
const remainingMs = (endsAt: number) => Math.max(1, Math.round(endsAt - performance.now()))

/** Decorates the app with `postgres`, a pool that closes with it. */
export const postgresPool = fastifyPlugin(
  async (app) => {
    const pool = openPostgresPool(app.stores.databaseUrl, app.log)
    app.decorate('postgres', pool)
    app.addHook('onClose', () => pool.close())
  },
  { name: 'postgres', dependencies: ['stores'] },
)
