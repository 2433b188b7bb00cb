import { readFile } from 'node:fs/promises'
import postgres from 'postgres'
import { describe, expect, onTestFinished, test } from 'vitest'
import { LOCKS } from '../../src/stores/locks.ts'
import { migrateDatabase } from '../../src/stores/migrate.ts'
import { SILENT_LOG } from '../support/silent-log.ts'
import { startProxy } from '../support/start-proxy.ts'
import { createEmptyDatabase, emptyDatabase } from '../support/stores.ts'
import { until } from '../support/until.ts'

const ROOT = new URL('../../', import.meta.url)
const readSql = (path: string) => readFile(new URL(path, ROOT), 'utf8')

function connect(url: string): postgres.Sql {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  onTestFinished(() => sql.end())
  return sql
}

/** Creates a database with the newest schema. */
async function createMigratedDatabase(): Promise<postgres.Sql> {
  const url = await createEmptyDatabase()
  await migrateDatabase(url, SILENT_LOG)
  return connect(url)
}

describe('the migrations', () => {
  test('are applied once, by four instances at the same time and by a later one', async () => {
    const url = await createEmptyDatabase()
    await Promise.all(Array.from({ length: 4 }, () => migrateDatabase(url, SILENT_LOG)))
    const sql = connect(url)
    const readApplied = () => sql`select hash from public.order_once_migrations order by id`
    const applied = await readApplied()
    await migrateDatabase(url, SILENT_LOG)
    expect(await readApplied()).toEqual(applied)
    expect(new Set(applied.map(({ hash }) => hash)).size).toBe(applied.length)
    expect(await sql`select count(*)::int as count from orders`).toEqual([{ count: 0 }])
  })

  test('are applied again from the start when their connection is lost', async () => {
    const url = await createEmptyDatabase()
    const { proxy, url: proxiedUrl } = await startProxy(url)
    const sql = connect(url)
    await sql`select pg_advisory_lock(${LOCKS.migration})`
    const migrated = migrateDatabase(proxiedUrl, SILENT_LOG)
    await until(async () => {
      // It has tried to take the lock, and waits for the next try.
      const waiting = await sql`
        select 1 from pg_stat_activity
        where datname = current_database() and query = 'rollback' and pid <> pg_backend_pid()`
      return waiting.length > 0
    })
    proxy.resetAll()
    await sql`select pg_advisory_unlock(${LOCKS.migration})`
    await migrated
    expect(await sql`select count(*)::int as count from orders`).toEqual([{ count: 0 }])
  })

  test('are not skipped because of another application of drizzle in the same database', async () => {
    const url = await createEmptyDatabase()
    const sql = connect(url)
    // drizzle skips all migrations that are older than the last one in its table.
    await sql`create schema drizzle`
    await sql`create table drizzle.__drizzle_migrations (id serial primary key, hash text not null, created_at bigint)`
    await sql`insert into drizzle.__drizzle_migrations (hash, created_at) values ('later', ${Date.UTC(2100)})`
    await migrateDatabase(url, SILENT_LOG)
    expect(await sql`select count(*)::int as count from orders`).toEqual([{ count: 0 }])
    expect(await sql`select hash from drizzle.__drizzle_migrations`).toEqual([{ hash: 'later' }])
  })

  test('are applied in the schema public, whatever the search path', async () => {
    const url = await createEmptyDatabase()
    const sql = connect(url)
    await sql`create schema other`
    await sql.unsafe(`alter database ${sql.options.database} set search_path to other`)
    await migrateDatabase(url, SILENT_LOG)
    expect(
      await sql`select schemaname from pg_tables where tablename in ('orders', 'order_once_migrations')`,
    ).toEqual([{ schemaname: 'public' }, { schemaname: 'public' }])
  })

  test("contain the SQL of the package's records word for word", async () => {
    const baseline = await readSql('migrations/0000_baseline.sql')
    const records = await readSql('packages/idempotency/sql/idempotency-records.sql')
    // drizzle separates the statements of a migration by a line of its own.
    expect(baseline.replaceAll('--> statement-breakpoint\n', '\n')).toContain(records.trim())
  })
})

describe('the schema', () => {
  test('refuses a repeated key, and an amount that is not positive or too large', async () => {
    const sql = await createMigratedDatabase()
    const insert = (n: number, amount: string, key: string) => sql`
      insert into orders (id, user_id, item, amount, idempotency_key, request_fingerprint)
      values (${`00000000-0000-7000-8000-00000000000${n}`}, 'u', 'i', ${amount}, ${key}, 'v1:')`
    await insert(1, '99999999999.9999', 'a')
    await expect(insert(2, '1', 'a')).rejects.toThrow('orders_client_id_idempotency_key')
    await expect(insert(3, '0', 'b')).rejects.toThrow('orders_amount_positive')
    await expect(insert(4, '100000000000', 'c')).rejects.toThrow('numeric field overflow')
  })

  test('compares keys byte by byte, whatever the collation of the database', async () => {
    const { sql } = await emptyDatabase()
    const collations = await sql`
      select attrelid::regclass::text || '.' || attname as column, collname
      from pg_attribute join pg_collation on pg_collation.oid = attcollation
      where attrelid in ('orders'::regclass, 'idempotency_records'::regclass)
        and attname in ('client_id', 'idempotency_key', 'released_key', 'key')
      order by 1`
    expect(collations).toEqual([
      { column: 'idempotency_records.key', collname: 'C' },
      { column: 'orders.client_id', collname: 'C' },
      { column: 'orders.idempotency_key', collname: 'C' },
      { column: 'orders.released_key', collname: 'C' },
    ])
  })

  test('gives each database a random id of eight hex digits', async () => {
    const readIds = async (sql: postgres.Sql) =>
      (await sql`select id from order_once_database`).map(({ id }) => id)
    const [one, ...others] = await readIds(await createMigratedDatabase())
    expect(one).toMatch(/^[0-9a-f]{8}$/)
    expect(others).toEqual([])
    expect(await readIds(await createMigratedDatabase())).not.toEqual([one])
  })
})
