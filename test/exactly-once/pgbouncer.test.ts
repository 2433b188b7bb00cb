import postgres from 'postgres'
import { describe, expect, onTestFinished, test } from 'vitest'
import { cleanUp } from '../../src/clean-up.ts'
import { newKey, ORDER, send, sendAll } from '../support/client.ts'
import { pgbouncerProgram, startPgBouncer } from '../support/pgbouncer.ts'
import { runBinary, startProcess } from '../support/process.ts'
import { createTestStores, startInstance } from '../support/service.ts'
import { createEmptyDatabase, hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

/** Fewer than a process opens: they share connections to the server in the middle of their work. */
const POOL_SIZE = 2

async function startPooler(serverUrl: string) {
  const pooler = await startPgBouncer(serverUrl, POOL_SIZE)
  onTestFinished(() => pooler.stop())
  const sql = postgres(serverUrl, { max: 1 })
  onTestFinished(() => sql.end())
  /** What sessions have left behind that the next user of their connection would get. */
  const readLeftovers = () => sql`
    select 'advisory lock' as what from pg_locks
    where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
    union all
    select state from pg_stat_activity
    where datname = current_database() and state like 'idle in transaction%'`
  return { url: pooler.url, sql, readLeftovers }
}

describe.skipIf(pgbouncerProgram === undefined)('behind PgBouncer in transaction mode', () => {
  test('instances that start together on an empty database all listen, and leave no lock behind', async () => {
    const { url, sql, readLeftovers } = await startPooler(await createEmptyDatabase())
    const env = { DATABASE_URL: url, IDEMPOTENCY_STORE: 'memory' }
    const services = await Promise.all([1, 2, 3].map(() => startProcess(env)))
    await until(async () => (await readLeftovers()).length === 0)
    for (const { port } of services) expect((await send(port)).status).toBe(201)
    expect(await sql`select from orders`).toHaveLength(3)
    expect((await runBinary(['migrate'], env)).stdout).toBe('The database is up to date.\n')
    await until(async () => (await readLeftovers()).length === 0)
  })

  test.each(['redis', 'postgres', 'memory'])(
    'each of many orders at once gets its own response, and its repeats get the same (%s)',
    async (store) => {
      if (store === 'redis' && !hasRedis) return
      const { database, redisSpace } = await createTestStores({ redis: store === 'redis' })
      const { url, sql, readLeftovers } = await startPooler(database.url)
      const stores = { database: { url }, redisSpace }
      const env = { IDEMPOTENCY_STORE: store }
      const instances = [
        await startInstance(stores, { env }),
        await startInstance(stores, { env }),
      ] as const
      const keys = Array.from({ length: 100 }, () => newKey())
      const sendTo = (instance: number, index: number) =>
        until(async () => {
          const { port } = instances[instance % 2 ? 1 : 0]
          const key = keys[index] as string
          const reply = await send(port, { key, body: { ...ORDER, amount: index + 1 } })
          return reply.status === 503 ? undefined : reply // overloaded: a busy machine
        })
      const first = await sendAll(keys.length, (index) => sendTo(index, index))
      for (const [index, { status, json }] of first.entries()) {
        expect(status).toBe(201)
        expect(json.order).toMatchObject({ idempotency_key: keys[index], amount: index + 1 })
      }
      // Through the other instance.
      const repeats = await sendAll(keys.length, (index) => sendTo(index + 1, index))
      expect(repeats.map(({ text }) => text)).toEqual(first.map(({ text }) => text))
      expect(await sql`select from orders`).toHaveLength(keys.length)
      await until(async () => (await readLeftovers()).length === 0)
    },
  )

  test('racing duplicates get one order', async () => {
    const { database } = await createTestStores({ redis: false })
    const { url, sql } = await startPooler(database.url)
    const stores = { database: { url } }
    const instances = [await startInstance(stores), await startInstance(stores)]
    const key = newKey()
    const replies = await sendAll(40, (index) => send(instances[index % 2]?.port ?? 0, { key }))
    const bodies = replies.filter(({ status }) => status === 201).map(({ text }) => text)
    for (const { status } of replies) expect([201, 409]).toContain(status)
    expect(new Set(bodies).size).toBe(1)
    expect(await sql`select from orders`).toHaveLength(1)
  })

  test('the clean-up releases keys, and leaves no transaction open', async () => {
    const { database } = await createTestStores({ redis: false })
    const { url, sql, readLeftovers } = await startPooler(database.url)
    const { port } = await startInstance({ database: { url } })
    await send(port)
    await sql`update orders set created_at = now() - interval '2 days'`
    const report = await cleanUp({ databaseUrl: url, redisUrl: undefined }, { keyRetentionDays: 1 })
    expect(report.releasedKeys).toBe(1)
    await until(async () => (await readLeftovers()).length === 0)
  })
})
