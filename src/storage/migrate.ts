import { fileURLToPath } from 'node:url'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate } from 'drizzle-orm/postgres-js/migrator'
import { StartError } from '../start-error.ts'
import { duringStart } from './postgres.ts'

const MIGRATIONS_FOLDER = fileURLToPath(new URL('../../migrations', import.meta.url))

/** Any number that no other user of the database locks: the letters "order" in hexadecimal. */
const MIGRATION_LOCK = 0x6f72646572

/**
 * Brings the database to the newest schema. Instances that start together take turns by an
 * advisory lock, which drizzle's migrator does not.
 *
 * @param url `postgres://…`
 * @throws {StartError} if Postgres refuses a migration, or is lost and does not come back
 */
export async function migrateDatabase(url: string): Promise<void> {
  try {
    await duringStart(url, async (client) => {
      const database = drizzle(client)
      // The session's end frees the lock.
      await database.execute(sql`select pg_advisory_lock(${MIGRATION_LOCK})`)
      await migrate(database, { migrationsFolder: MIGRATIONS_FOLDER })
    })
  } catch (error) {
    const { message } = error as Error
    throw new StartError(`the database could not be brought to the newest schema: ${message}`)
  }
}
