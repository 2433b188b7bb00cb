/** Applies the migrations. */
import { fileURLToPath } from 'node:url'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate } from 'drizzle-orm/postgres-js/migrator'
import { StartError } from '../start-error.ts'
import { LOCKS } from './locks.ts'
import { retryWhileStarting } from './postgres-session.ts'

const MIGRATIONS_FOLDER = fileURLToPath(new URL('../../migrations', import.meta.url))

/**
 * Applies pending migrations under a lock, so that instances that start together take turns.
 *
 * @param url `postgres://…`
 * @throws {StartError} if Postgres refuses a migration, or is lost and does not come back
 */
export async function migrateDatabase(url: string): Promise<void> {
  try {
    await retryWhileStarting(url, async (client) => {
      const database = drizzle(client)
      // Whatever the role's search path is, our statements name `public`.
      await database.execute(sql`set search_path to public`)
      // The end of the session releases the lock.
      await database.execute(sql`select pg_advisory_lock(${LOCKS.migration})`)
      await migrate(database, {
        migrationsFolder: MIGRATIONS_FOLDER,
        // With drizzle's default name, another application in the same database would make it skip
        // our migrations.
        migrationsSchema: 'public',
        migrationsTable: 'order_once_migrations',
      })
    })
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new StartError(`the database could not be migrated: ${reason}`)
  }
}
