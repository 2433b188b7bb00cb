import postgres from 'postgres'
import { expect, onTestFinished, test } from 'vitest'
import { migrateDatabase } from '../../src/stores/migrate.ts'
import { createEmptyDatabase } from '../support/stores.ts'
import { TcpProxy } from '../support/tcp-proxy.ts'
import { until } from '../support/until.ts'

test('four migrations of one empty database at once all succeed, and a fifth changes nothing', async () => {
  const url = await createEmptyDatabase()
  await Promise.all(Array.from({ length: 4 }, () => migrateDatabase(url)))
  const sql = postgres(url, { max: 1 })
  onTestFinished(() => sql.end())
  const applied = () => sql`select hash from public.order_once_migrations order by id`
  const before = await applied()
  await migrateDatabase(url)
  expect(await applied()).toEqual(before)
  expect(await sql`select count(*)::int as count from orders`).toEqual([{ count: 0 }])
})

test('the table guards what the service promises, whoever writes to it', async () => {
  const url = await createEmptyDatabase()
  await migrateDatabase(url)
  const sql = postgres(url, { max: 1 })
  onTestFinished(() => sql.end())
  const insert = (n: number, amount: string, key: string) => sql`
    insert into orders (id, user_id, item, amount, idempotency_key, request_fingerprint)
    values (${`00000000-0000-7000-8000-00000000000${n}`}, 'u', 'i', ${amount}, ${key}, 'v1:')`
  await insert(1, '99999999999.9999', 'a')
  await expect(insert(2, '1', 'a')).rejects.toThrow('orders_client_id_idempotency_key')
  await expect(insert(3, '0', 'b')).rejects.toThrow('orders_amount_positive')
  await expect(insert(4, '100000000000', 'c')).rejects.toThrow('numeric field overflow')
})

test('a migration whose connection is cut begins again', async () => {
  const url = await createEmptyDatabase()
  const startProxy = new URL(url)
  const proxy = await TcpProxy.start(Number(startProxy.port))
  startProxy.host = `127.0.0.1:${proxy.port}`
  const sql = postgres(url, { max: 1 })
  onTestFinished(async () => {
    await sql.end()
    await proxy.close()
  })
  await sql`select pg_advisory_lock(${String(0x6f72646572)}::bigint)`
  const migrated = migrateDatabase(startProxy.href)
  const isWaiting = async () =>
    (await sql`select 1 from pg_locks where locktype = 'advisory' and not granted`).length > 0
  await until(isBlocking)
  proxy.cutAll()
  await sql`select pg_advisory_unlock(${String(0x6f72646572)}::bigint)`
  await migrated
  expect(await sql`select count(*)::int as count from orders`).toEqual([{ count: 0 }])
})
