import { setTimeout as sleep } from 'node:timers/promises'
import { drizzle, type PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { StartError } from '../start-error.ts'

export type Database = PostgresJsDatabase

/** An open pool of connections to Postgres. */
export interface PostgresPool {
  database: Database
  /** Ends the pool; queries at work have `CLOSE_TIMEOUT_SECONDS` to finish. */
  close(): Promise<void>
}

/** More connections do not commit faster: the pool waits less than Postgres would. */
const MAX_CONNECTIONS = 10
const CONNECT_TIMEOUT_SECONDS = 5
const CLOSE_TIMEOUT_SECONDS = 2

/** Opens a pool that connects on demand. @param url `postgres://…` */
export function openPostgres(url: string): PostgresPool {
  const client = postgres(url, {
    max: MAX_CONNECTIONS,
    connect_timeout: CONNECT_TIMEOUT_SECONDS,
    connection: { application_name: 'order-once' },
    onnotice: () => {},
  })
  return {
    database: drizzle(client),
    close: () => client.end({ timeout: CLOSE_TIMEOUT_SECONDS }),
  }
}

/** How long a database that was started together with the service may take to answer. */
const START_TIMEOUT_MS = 15_000
const RETRY_MS = 250

/** What Postgres says while it starts or stops (57P03), and what its port does before it listens. */
const STARTING = ['57P03', 'ECONNRESET', 'CONNECTION_CLOSED', 'CONNECT_TIMEOUT']

/**
 * Waits for a Postgres that may be starting.
 *
 * @param options `started`: a port on which nothing listens is taken for a Postgres that is absent
 * @throws {StartError} if it refuses us, or does not answer within `START_TIMEOUT_MS`
 */
export async function untilPostgresAnswers(url: string, { started = false } = {}): Promise<void> {
  const passing = started ? STARTING : [...STARTING, 'ECONNREFUSED']
  const giveUpAt = performance.now() + START_TIMEOUT_MS
  const client = postgres(url, { max: 1, connect_timeout: 2, onnotice: () => {} })
  try {
    while (true) {
      const failure = await client`select 1`.then(
        () => undefined,
        (error: unknown) => error,
      )
      if (failure === undefined) return
      const { code = '', message } = failure as Error & { code?: string }
      if (!passing.includes(code) || performance.now() > giveUpAt) {
        throw new StartError(`Postgres at ${placeOf(url)} does not answer: ${message || code}`)
      }
      await sleep(RETRY_MS)
    }
  } finally {
    await client.end({ timeout: 0 })
  }
}

/** Host, port and database of a store's URL, without its user and password. */
export function placeOf(url: string): string {
  const { host, pathname } = new URL(url)
  return `${host}${pathname}`
}
