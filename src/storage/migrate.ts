import { fileURLToPath } from 'node:url'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate } from 'drizzle-orm/postgres-js/migrator'
import postgres from 'postgres'

const MIGRATIONS_FOLDER = fileURLToPath(new URL('../../migrations', import.meta.url))

/** Any number that no other user of the database locks: the letters "order" in hexadecimal. */
const MIGRATION_LOCK = 0x6f72646572

/**
 * Brings the database to the newest schema. Instances that start together take turns by an
 * advisory lock, which drizzle's migrator does not.
 *
 * @param url `postgres://…`
 * @throws if Postgres cannot be reached or refuses a migration
 */
export async function migrateDatabase(url: string): Promise<void> {
  // One connection, so that the lock and the migrations share a session; its end frees the lock.
  const client = postgres(url, { max: 1, onnotice: () => {} })
  try {
    const database = drizzle(client)
    await database.execute(sql`select pg_advisory_lock(${MIGRATION_LOCK})`)
    await migrate(database, { migrationsFolder: MIGRATIONS_FOLDER })
  } finally {
    await client.end()
  }
}
