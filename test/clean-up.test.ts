import { pino } from 'pino'
import postgres from 'postgres'
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { cleanUp, scheduleCleanUp } from '../src/clean-up.ts'
import { releaseOldKeys } from '../src/orders/key-retention.ts'
import { newKey, ORDER, send } from './support/client.ts'
import { createTestStores, startInstance } from './support/service.ts'
import { emptyDatabase, hasRedis } from './support/stores.ts'
import { until } from './support/until.ts'

let url: string
let sql: postgres.Sql

beforeEach(async () => {
  ;({ url, sql } = await emptyDatabase())
})

/** Inserts one order a number of days old for each of the keys, the first the oldest. */
async function insertOrders(ages: Record<string, number>) {
  let n = 0
  for (const [key, days] of Object.entries(ages)) {
    const id = `00000000-0000-7000-8000-${String(++n).padStart(12, '0')}`
    await sql`
      insert into orders (id, user_id, item, amount, idempotency_key, request_fingerprint, created_at)
      values (${id}, 'u', 'i', 1, ${key}, 'v1:', now() - ${`${days} days`}::interval)`
  }
}

const keys = async () =>
  (await sql`select idempotency_key as held, released_key as released from orders order by id`).map(
    ({ held, released }) => ({ held, released }),
  )

const run = (keyRetentionDays: number) =>
  cleanUp({ databaseUrl: url, redisUrl: undefined }, { keyRetentionDays })

describe('the clean-up of keys', () => {
  test('releases the keys of orders older than the retention, and keeps them readable', async () => {
    await insertOrders({ old: 31, older: 30.1, young: 29.9 })
    expect(await run(30)).toEqual({ releasedKeys: 2, deletedRecords: 0 })
    expect(await keys()).toEqual([
      { held: null, released: 'old' },
      { held: null, released: 'older' },
      { held: 'young', released: null },
    ])
  })

  test('releases none with a retention of 0', async () => {
    await insertOrders({ old: 10_000 })
    expect(await run(0)).toEqual({ releasedKeys: 0, deletedRecords: 0 })
    expect(await keys()).toEqual([{ held: 'old', released: null }])
  })

  test('goes on where it stopped, and does nothing twice', async () => {
    await insertOrders({ a: 40, b: 35, c: 20 })
    expect((await run(38)).releasedKeys).toBe(1)
    expect((await run(30)).releasedKeys).toBe(1)
    expect((await run(30)).releasedKeys).toBe(0)
    expect((await run(10)).releasedKeys).toBe(1)
  })

  test('works in batches, and one statement looks at no more orders than its limit', async () => {
    await insertOrders({ a: 9, b: 8, c: 7, d: 6, e: 1 })
    const runQuery = (text: string, values: unknown[]) => sql.unsafe(text, values as never[])
    expect(await releaseOldKeys(runQuery, 5, 3)).toHaveLength(3)
    expect(await releaseOldKeys(runQuery, 5, 3)).toHaveLength(1)
    expect(await releaseOldKeys(runQuery, 5, 3)).toHaveLength(0)
  })

  test('passes over no order whose id and age disagree', async () => {
    await insertOrders({ a: 9, young: 1, b: 9 })
    expect((await run(5)).releasedKeys).toBe(2)
    await sql`update orders set created_at = now() - interval '6 days' where idempotency_key = 'young'`
    expect((await run(5)).releasedKeys).toBe(1)
  })

  test('handles more than a batch', async () => {
    await sql`
      insert into orders (id, user_id, item, amount, idempotency_key, request_fingerprint, created_at)
      select ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'u', 'i', 1, n, 'v1:', now() - interval '2 days'
      from generate_series(1, 1234) n`
    expect((await run(1)).releasedKeys).toBe(1234)
  })

  test('frees a key for a new order, while the old one keeps its history', async () => {
    const stores = await createTestStores({ redis: false })
    const key = newKey()
    const old = await send((await startInstance(stores)).port, { key })
    await sql`update orders set created_at = now() - interval '31 days'`
    expect((await run(30)).releasedKeys).toBe(1)

    const restarted = await startInstance(stores) // its records, in memory, are of today
    const fresh = await send(restarted.port, { key, body: { ...ORDER, amount: 7 } })
    expect(fresh.status).toBe(201)
    expect(fresh.headers['idempotency-replayed']).toBeUndefined()
    expect(await sql`select id, released_key from orders order by id`).toEqual([
      { id: old.json.order.id, released_key: key },
      { id: fresh.json.order.id, released_key: null },
    ])
  })

  test('does not block the insert of an order', async () => {
    const { port } = await startInstance(await createTestStores({ redis: false }))
    await insertOrders({ a: 40, b: 40 })
    const holder = postgres(url, { max: 1 })
    onTestFinished(() => holder.end())
    await holder.begin(async (transaction) => {
      await transaction`update orders set idempotency_key = null, released_key = idempotency_key`
      expect((await send(port)).status).toBe(201)
    })
  })
})

describe.runIf(hasRedis)('the clean-up of keys, with Redis', () => {
  test('deletes the response of a released key, so that it is free for a new order', async () => {
    const stores = await createTestStores()
    const { port } = await startInstance(stores)
    const key = newKey()
    const old = await send(port, { key })
    const redis = stores.redisSpace?.redis
    await until(async () => (await redis?.get(`idemp:${key}`))?.includes('completed'))
    await sql`update orders set created_at = now() - interval '2 days'`
    const redisUrl = stores.redisSpace?.url
    expect(await cleanUp({ databaseUrl: url, redisUrl }, { keyRetentionDays: 1 })).toMatchObject({
      releasedKeys: 1,
    })
    const fresh = await send(port, { key, body: { ...ORDER, amount: 7 } })
    expect(fresh.status).toBe(201)
    expect(fresh.json.order.id).not.toBe(old.json.order.id)
  })

  test('releases no key while Redis does not respond: its response could be replayed', async () => {
    await insertOrders({ old: 31 })
    const redisUrl = 'redis://127.0.0.1:1'
    await expect(cleanUp({ databaseUrl: url, redisUrl }, { keyRetentionDays: 1 })).rejects.toThrow()
    expect(await keys()).toEqual([{ held: 'old', released: null }])
  })
})

describe('the clean-up of records', () => {
  test('deletes what has expired, and nothing else', async () => {
    await sql`
      insert into idempotency_records (key, fingerprint, token, expires_at)
      select n, '', '', now() + (n - 1000.5) * interval '1 minute' from generate_series(1, 1100) n`
    expect(await run(0)).toEqual({ releasedKeys: 0, deletedRecords: 1000 })
    expect(await sql`select count(*)::int as count from idempotency_records`).toEqual([
      { count: 100 },
    ])
  })
})

describe('the clean-up', () => {
  test('of two instances at once releases each key once', async () => {
    await sql`
      insert into orders (id, user_id, item, amount, idempotency_key, request_fingerprint, created_at)
      select gen_random_uuid(), 'u', 'i', 1, n, 'v1:', now() - interval '2 days'
      from generate_series(1, 2000) n`
    const reports = await Promise.all([run(1), run(1)])
    expect(reports.map(({ releasedKeys }) => releasedKeys).reduce((a, b) => a + b)).toBe(2000)
  })

  test('runs on a schedule, reports what it did, outlives a failure, and stops', async () => {
    const lines: Record<string, unknown>[] = []
    const log = pino({ base: null }, { write: (line) => void lines.push(JSON.parse(line)) })
    let runs = 0
    const stop = scheduleCleanUp(
      async () => {
        if (++runs === 1) throw new Error('Postgres is away')
        return { releasedKeys: 2, deletedRecords: 3 }
      },
      log,
      { intervalMs: 5, random: () => 1 },
    )
    await until(() => runs >= 3)
    await stop()
    const stoppedAt = runs
    expect(lines[0]).toMatchObject({ level: 40, msg: expect.stringContaining('clean-up failed') })
    expect(lines[1]).toMatchObject({ msg: 'cleaned up', releasedKeys: 2, deletedRecords: 3 })
    await new Promise((resolve) => setImmediate(resolve))
    expect(runs).toBe(stoppedAt)
  })

  test.each([
    [0, 0],
    [0.5, 1_800_000],
  ])('runs first after a random part of the interval (%d of it)', async (random, firstAtMs) => {
    vi.useFakeTimers()
    onTestFinished(() => void vi.useRealTimers())
    let runs = 0
    const stop = scheduleCleanUp(
      async () => {
        runs++
        return { releasedKeys: 0, deletedRecords: 0 }
      },
      pino({ level: 'silent' }),
      { random: () => random },
    )
    if (firstAtMs > 0) await vi.advanceTimersByTimeAsync(firstAtMs - 1)
    expect(runs).toBe(0)
    await vi.advanceTimersByTimeAsync(1)
    expect(runs).toBe(1)
    await vi.advanceTimersByTimeAsync(3_600_000)
    expect(runs).toBe(2)
    await stop()
  })
})
