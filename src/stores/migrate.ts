/** Applies the migrations. */
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { withDeadline } from '@order-once/idempotency/batching'
import { type MigrationMeta, readMigrationFiles } from 'drizzle-orm/migrator'
import type { FastifyBaseLogger } from 'fastify'
import type postgres from 'postgres'
import { QUERY_TIMEOUT_MS } from '../limits.ts'
import { StartError } from '../start-error.ts'
import { LOCKS } from './locks.ts'
import { NOTICE_AFTER_MS, retryWhileStarting } from './postgres-session.ts'

const MIGRATIONS_FOLDER = fileURLToPath(new URL('../../migrations', import.meta.url))

/** How often a start tries to take the lock that another one holds for its migrations. */
const LOCK_INTERVAL_MS = 250

/**
 * Applies pending migrations in one transaction, under a lock of that transaction: instances that start
 * together take turns, and a connection pooler keeps no lock behind. A database that is up to date is
 * only read. (drizzle's own migrator takes no lock, and needs the right to create schemas.)
 *
 * @param url `postgres://…`
 * @throws {StartError} if Postgres refuses a migration, or is lost and does not come back
 */
export async function migrateDatabase(url: string, log: FastifyBaseLogger): Promise<void> {
  const migrations = readMigrationFiles({ migrationsFolder: MIGRATIONS_FOLDER })
  const notice = setTimeout(
    () => log.info('waiting for Postgres, or for the migrations of another instance'),
    NOTICE_AFTER_MS,
  )
  try {
    await retryWhileStarting(url, async (client) => {
      const finding = findPending(client, migrations)
      const pending = await withDeadline(finding, QUERY_TIMEOUT_MS, 'no response to a query')
      if (pending.length === 0) return
      while (!(await migrateIfLockIsFree(client, migrations))) await sleep(LOCK_INTERVAL_MS)
    })
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new StartError(`pending migrations could not be applied: ${reason}`)
  } finally {
    clearTimeout(notice)
  }
}

/** @returns false if another instance has the lock */
async function migrateIfLockIsFree(
  client: postgres.Sql,
  migrations: MigrationMeta[],
): Promise<boolean> {
  // By single statements on the one connection of this session: `client.begin` can throw uncaught when
  // the connection is lost.
  await client`begin`
  const [lock] = await client`select pg_try_advisory_xact_lock(${LOCKS.migration}) as is_held`
  if (!lock?.is_held) {
    await client`rollback`
    return false
  }
  await client`
    create table if not exists public.order_once_migrations (
      id serial primary key, hash text not null, created_at bigint not null
    )`
  // Whatever the role's search path is, our statements name `public`.
  await client`set local search_path to public`
  for (const { sql, hash, folderMillis } of await findPending(client, migrations)) {
    for (const statement of sql) await client.unsafe(statement)
    await client`
      insert into public.order_once_migrations (hash, created_at) values (${hash}, ${folderMillis})`
  }
  await client`commit`
  return true
}

/** The migrations that are newer than the last one applied. */
async function findPending(
  client: postgres.Sql,
  migrations: MigrationMeta[],
): Promise<MigrationMeta[]> {
  const [table] = await client`select to_regclass('public.order_once_migrations') as name`
  if (!table?.name) return migrations
  const [last] = await client`
    select max(created_at)::float8 as applied from public.order_once_migrations`
  return migrations.filter(({ folderMillis }) => folderMillis > (last?.applied ?? 0))
}
