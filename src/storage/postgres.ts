import { drizzle, type PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'

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
