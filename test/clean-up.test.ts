import { pino } from 'pino'
import postgres from 'postgres'
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { type CleanUpReport, cleanUp, scheduleCleanUp } from '../src/clean-up.ts'
import { releaseOldKeys } from '../src/orders/key-retention.ts'
import { newKey, ORDER, send } from './support/client.ts'
import { createGate } from './support/gate.ts'
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

const readKeys = async () =>
  (await sql`select idempotency_key as kept, released_key as released from orders order by id`).map(
    ({ kept, released }) => ({ kept, released }),
  )

const cleanUpKeys = (keyRetentionDays: number) =>
  cleanUp({ databaseUrl: url, redisUrl: undefined }, { keyRetentionDays })

describe('the clean-up of keys', () => {
  test('releases the keys of orders older than the retention, and keeps them in released_key', async () => {
    await insertOrders({ old: 31, older: 30.1, young: 29.9 })
    expect(await cleanUpKeys(30)).toEqual({ releasedKeys: 2, deletedRecords: 0 })
    expect(await readKeys()).toEqual([
      { kept: null, released: 'old' },
      { kept: null, released: 'older' },
      { kept: 'young', released: null },
    ])
  })

  test('releases no key with a retention of 0', async () => {
    await insertOrders({ old: 10_000 })
    expect(await cleanUpKeys(0)).toEqual({ releasedKeys: 0, deletedRecords: 0 })
    expect(await readKeys()).toEqual([{ kept: 'old', released: null }])
  })

  test('releases each key once, over several runs', async () => {
    await insertOrders({ a: 40, b: 35, c: 20 })
    expect((await cleanUpKeys(38)).releasedKeys).toBe(1)
    expect((await cleanUpKeys(30)).releasedKeys).toBe(1)
    expect((await cleanUpKeys(30)).releasedKeys).toBe(0)
    expect((await cleanUpKeys(10)).releasedKeys).toBe(1)
  })

  test('releases no more keys in one statement than its limit', async () => {
    await insertOrders({ a: 9, b: 8, c: 7, d: 6, e: 1 })
    const runQuery = (text: string, values: unknown[]) => sql.unsafe(text, values as never[])
    expect(await releaseOldKeys(runQuery, 5, 3)).toHaveLength(3)
    expect(await releaseOldKeys(runQuery, 5, 3)).toHaveLength(1)
    expect(await releaseOldKeys(runQuery, 5, 3)).toHaveLength(0)
  })

  test('releases by the age of an order, not by its id', async () => {
    await insertOrders({ a: 9, young: 1, b: 9 })
    expect((await cleanUpKeys(5)).releasedKeys).toBe(2)
    await sql`update orders set created_at = now() - interval '6 days' where idempotency_key = 'young'`
    expect((await cleanUpKeys(5)).releasedKeys).toBe(1)
  })

  test('releases more keys than one batch has', async () => {
    await sql`
      insert into orders (id, user_id, item, amount, idempotency_key, request_fingerprint, created_at)
      select ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'u', 'i', 1, n, 'v1:', now() - interval '2 days'
      from generate_series(1, 1234) n`
    expect((await cleanUpKeys(1)).releasedKeys).toBe(1234)
  })

  test('allows a new order with a released key, while the old order keeps its row', async () => {
    const stores = await createTestStores({ redis: false })
    const key = newKey()
    const old = await send((await startInstance(stores)).port, { key })
    await sql`update orders set created_at = now() - interval '31 days'`
    expect((await cleanUpKeys(30)).releasedKeys).toBe(1)

    const restarted = await startInstance(stores) // without the records in memory
    const fresh = await send(restarted.port, { key, body: { ...ORDER, amount: 7 } })
    expect(fresh.status).toBe(201)
    expect(fresh.headers['idempotency-replayed']).toBeUndefined()
    expect(await sql`select id, released_key from orders order by id`).toEqual([
      { id: old.json.order.id, released_key: key },
      { id: fresh.json.order.id, released_key: null },
    ])
  })

  test('does not block an insert', async () => {
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
    expect(await readKeys()).toEqual([{ kept: 'old', released: null }])
  })
})

describe('the clean-up of records', () => {
  test('deletes the expired records and no others', async () => {
    await sql`
      insert into idempotency_records (key, fingerprint, token, expires_at)
      select n, '', '', now() + (n - 1000.5) * interval '1 minute' from generate_series(1, 1100) n`
    expect(await cleanUpKeys(0)).toEqual({ releasedKeys: 0, deletedRecords: 1000 })
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
    const [one, other] = await Promise.all([cleanUpKeys(1), cleanUpKeys(1)])
    expect(one.releasedKeys + other.releasedKeys).toBe(2000)
  })
})

describe('the schedule of the clean-up', () => {
  const HOUR_MS = 3_600_000
  const lines: Record<string, unknown>[] = []
  const log = pino({ base: null }, { write: (line) => void lines.push(JSON.parse(line)) })

  beforeEach(() => {
    vi.useFakeTimers()
    lines.length = 0
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  test('runs it every hour, also after a failure, logs the result, and stops', async () => {
    const run = vi.fn<() => Promise<CleanUpReport>>()
    run.mockRejectedValueOnce(new Error('Postgres does not respond'))
    run.mockResolvedValue({ releasedKeys: 2, deletedRecords: 3 })
    const stop = scheduleCleanUp(run, log, { random: () => 0.999 })
    expect(run).not.toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(2 * HOUR_MS)
    expect(run).toHaveBeenCalledTimes(2)
    expect(lines).toMatchObject([
      { level: 40, msg: 'the clean-up failed; it runs again later' },
      { level: 30, msg: 'cleaned up', releasedKeys: 2, deletedRecords: 3 },
    ])
    await stop()
    await vi.advanceTimersByTimeAsync(2 * HOUR_MS)
    expect(run).toHaveBeenCalledTimes(2)
  })

  test.each([
    [0, 0],
    [0.5, HOUR_MS / 2],
  ])('begins after a random part of an hour (%d of it)', async (random, firstAtMs) => {
    const run = vi.fn(async () => ({ releasedKeys: 0, deletedRecords: 0 }))
    const stop = scheduleCleanUp(run, log, { random: () => random })
    await vi.advanceTimersByTimeAsync(Math.max(0, firstAtMs - 1))
    expect(run).toHaveBeenCalledTimes(firstAtMs === 0 ? 1 : 0)
    await vi.advanceTimersByTimeAsync(1)
    expect(run).toHaveBeenCalledTimes(1)
    await stop()
  })

  test('skips an hour in which it still runs; the end waits for its current batch', async () => {
    const gate = createGate()
    let isStopped = false
    const stop = scheduleCleanUp(async (signal) => {
      await gate.pass()
      isStopped = signal.aborted
      return { releasedKeys: 0, deletedRecords: 0 }
    }, log)
    await vi.advanceTimersByTimeAsync(3 * HOUR_MS)
    expect(gate.arrived).toBe(1)
    const stopping = stop()
    gate.open()
    await stopping
    expect(isStopped).toBe(true)
  })
})
