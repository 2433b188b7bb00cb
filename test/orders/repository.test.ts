import fc from 'fast-check'
import { pino } from 'pino'
import postgres from 'postgres'
import { describe, expect, onTestFinished, test } from 'vitest'
import {
  createOrdersRepository,
  type OrdersRepository,
  type OrderToInsert,
  RowMismatchError,
} from '../../src/orders/repository.ts'
import { buildResponse } from '../../src/orders/schema.ts'
import { openPostgresPool, type PostgresPool } from '../../src/stores/postgres-pool.ts'
import { newKey, ORDER } from '../support/client.ts'
import { anyOrder } from '../support/orders.ts'
import { emptyDatabase } from '../support/stores.ts'
import { until } from '../support/until.ts'

const newOrder = (changes: Partial<OrderToInsert> = {}): OrderToInsert => ({
  ...ORDER,
  idempotency_key: newKey(),
  request_fingerprint: 'v1:a',
  ...changes,
})

/** A repository on the test file's emptied database, and how often it ran a query. */
async function open({ maxBatch = 500 } = {}) {
  const { url, sql } = await emptyDatabase()
  const pool = openPostgresPool(url, pino({ level: 'silent' }))
  onTestFinished(() => pool.close())
  let queries = 0
  const counting: PostgresPool = {
    ...pool,
    query: (text, values) => {
      queries++
      return pool.query(text, values)
    },
  }
  return { orders: createOrdersRepository(counting, { maxBatch }), sql, queries: () => queries }
}

const insertAll = (orders: OrdersRepository, all: OrderToInsert[]) =>
  Promise.allSettled(all.map((order) => orders.insertOnce(order)))

describe('orders that come together', () => {
  test('are inserted by one statement, and each gets its own', async () => {
    const { orders, sql, queries } = await open()
    const all = Array.from({ length: 100 }, (_, i) => newOrder({ amount: i + 1 }))
    const results = await insertAll(orders, all)
    expect(queries()).toBe(1)
    const rows = await sql`select id, amount::float from orders`
    const amounts = new Map(rows.map(({ id, amount }) => [id, amount]))
    expect(amounts.size).toBe(100)
    for (const [i, result] of results.entries()) {
      if (result.status === 'rejected') throw result.reason
      expect(result.value).toMatchObject({ inserted: true, order: { amount: i + 1 } })
      expect(amounts.get(result.value.order.id)).toBe(i + 1)
    }
  })

  test('are one statement each where batches are of one', async () => {
    const { orders, sql, queries } = await open({ maxBatch: 1 })
    await insertAll(
      orders,
      Array.from({ length: 20 }, () => newOrder()),
    )
    expect(queries()).toBe(20)
    expect(await sql`select 1 from orders`).toHaveLength(20)
  })

  test('under one key are one order, in one batch as well', async () => {
    const { orders, sql } = await open()
    const idempotencyKey = newKey()
    const all = Array.from({ length: 20 }, () => newOrder({ idempotency_key: idempotencyKey }))
    const results = await Promise.all(all.map((order) => orders.insertOnce(order)))
    expect(results.filter(({ inserted }) => inserted)).toHaveLength(1)
    expect(new Set(results.map(({ order }) => order.id)).size).toBe(1)
    expect(await sql`select 1 from orders`).toHaveLength(1)
  })

  test('meet the orders that are there already, each its own', async () => {
    const { orders, sql } = await open()
    const known = Array.from({ length: 10 }, () => newOrder())
    const before = await Promise.all(known.map((order) => orders.insertOnce(order)))
    const mixed = known.flatMap((order) => [order, newOrder()])
    const after = await Promise.all(mixed.map((order) => orders.insertOnce(order)))
    expect(after.map(({ inserted }) => inserted)).toEqual(known.flatMap(() => [false, true]))
    expect(after.filter((_, i) => i % 2 === 0).map(({ order }) => order.id)).toEqual(
      before.map(({ order }) => order.id),
    )
    expect(await sql`select 1 from orders`).toHaveLength(20)
  })

  test('do not suffer from one among them that Postgres refuses', async () => {
    const { orders, sql } = await open()
    // The door refuses such orders; should one come through, it is refused alone.
    const bad = newOrder({ amount: -1 })
    const results = await insertAll(orders, [newOrder(), bad, newOrder(), newOrder()])
    expect(results.map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'fulfilled',
      'fulfilled',
    ])
    expect(await sql`select 1 from orders`).toHaveLength(3)
  })

  test('with the same keys in another order do not wait for each other', async () => {
    const { url } = await emptyDatabase()
    const failures: unknown[] = []
    const instances = [1, 2, 3].map(() => {
      const pool = openPostgresPool(url, pino({ level: 'silent' }))
      onTestFinished(() => pool.close())
      const noting: PostgresPool = {
        ...pool,
        query: (text, values) =>
          pool.query(text, values).catch((error) => {
            failures.push(error)
            throw error
          }),
      }
      return createOrdersRepository(noting, { maxBatch: 500 })
    })
    for (let round = 0; round < 10; round++) {
      const all = Array.from({ length: 100 }, () => newOrder())
      const orders = [all, all.toReversed(), all.toSorted(() => Math.random() - 0.5)]
      const results = await Promise.all(
        instances.map((instance, i) => insertAll(instance, orders[i] as OrderToInsert[])),
      )
      expect(results.flat().filter(({ status }) => status === 'rejected')).toEqual([])
      const inserted = results
        .flat()
        .filter((result) => result.status === 'fulfilled' && result.value.inserted)
      expect(inserted).toHaveLength(100)
    }
    expect(failures).toEqual([]) // of deadlocks, which are mended row by row
  })

  test('are all made, once, though their connection is cut in the middle of the batch', async () => {
    const { orders, sql } = await open()
    await orders.insertOnce(newOrder()) // it is connected now
    const all = Array.from({ length: 50 }, () => newOrder())
    const blocker = await sql.reserve()
    await blocker`begin`
    await blocker`lock table orders in share mode`
    const inserting = insertAll(orders, all)
    const waiting = async () =>
      (
        await sql`
          select pid from pg_stat_activity
          where wait_event_type = 'Lock' and application_name = 'order-once'
          and datname = current_database()`
      ).map(({ pid }) => pid)
    const pid = await until(async () => (await waiting())[0])
    await sql`select pg_terminate_backend(${pid})`
    await blocker`commit`
    blocker.release()
    const results = await inserting
    expect(results.map(({ status }) => status)).toEqual(all.map(() => 'fulfilled'))
    expect(await sql`select 1 from orders`).toHaveLength(51)
  })

  test('are bounded in their number: what cannot be inserted in time is refused at once', async () => {
    const { url, sql } = await emptyDatabase()
    const pool = openPostgresPool(url, pino({ level: 'silent' }))
    onTestFinished(() => pool.close())
    const orders = createOrdersRepository(pool, { maxBatch: 500 })
    const results = await insertAll(
      orders,
      Array.from({ length: 1_500 }, () => newOrder()),
    )
    const refused = results.filter(({ status }) => status === 'rejected')
    expect(refused).toHaveLength(500)
    expect(refused[0]).toMatchObject({ reason: { name: 'QueueFullError', statusCode: 503 } })
    expect(await sql`select 1 from orders`).toHaveLength(1_000)
  })
})

test('the first answer, made of what was sent, is the one that is rebuilt from the row', async () => {
  const { orders } = await open()
  await fc.assert(
    fc.asyncProperty(fc.array(anyOrder, { minLength: 1, maxLength: 20 }), async (inputs) => {
      const all = inputs.map((input) => newOrder(input))
      const inserted = await Promise.all(all.map((order) => orders.insertOnce(order)))
      for (const { order } of inserted) {
        const found = await orders.findByKey(order.idempotency_key as string)
        expect(found && buildResponse(found)).toEqual(buildResponse(order))
      }
    }),
    { numRuns: 100 },
  )
})

describe('a row that was not asked for', () => {
  /** A repository whose driver returns the given row whatever the query asks for. */
  function openConfused(row: Record<string, unknown>) {
    let mismatches = 0
    const pool = { query: async () => [row] }
    const orders = createOrdersRepository(pool, {
      maxBatch: 500,
      onRowMismatch: () => {
        mismatches++
      },
    })
    return { orders, mismatches: () => mismatches }
  }

  test('is an error of a look-up, and is counted', async () => {
    const { orders, mismatches } = openConfused({ idempotency_key: 'another' })
    await expect(orders.findByKey('mine')).rejects.toThrow(RowMismatchError)
    expect(mismatches()).toBe(1)
  })

  test('is an error of an insert, and is counted', async () => {
    const { orders, mismatches } = openConfused({ id: 'another', created_at: 0 })
    await expect(orders.insertOnce(newOrder())).rejects.toThrow(RowMismatchError)
    expect(mismatches()).toBe(1)
  })
})

test('each look-up finds its own order while a column of the table is altered', async () => {
  const { orders, sql } = await open()
  const keys = Array.from({ length: 100 }, newKey)
  await insertAll(
    orders,
    keys.map((idempotencyKey) => newOrder({ idempotency_key: idempotencyKey })),
  )
  const findAll = () => Promise.all(keys.map((key) => orders.findByKey(key)))
  await findAll() // each connection has prepared the statement

  let found: ReturnType<typeof findAll> | undefined
  await sql.begin(async (transaction) => {
    await transaction`alter table orders alter column item type varchar(300)`
    found = findAll()
    await until(async () => {
      const [row] = await transaction`
        select count(*)::int as waiting from pg_locks
        where not granted and relation = 'orders'::regclass`
      return row?.waiting === 10 // all connections of the pool
    })
  })
  expect((await found)?.map((order) => order?.idempotency_key)).toEqual(keys)
})

test.each(['25006', '28P01', '42P01', '42501', '55P03'])(
  'a batch that Postgres refuses as a whole (%s) is one statement',
  async (code) => {
    let statements = 0
    const refusal = Object.assign(Object.create(postgres.PostgresError.prototype), { code })
    const orders = createOrdersRepository(
      {
        query: async () => {
          statements++
          throw refusal
        },
      },
      { maxBatch: 500 },
    )
    const results = await insertAll(
      orders,
      Array.from({ length: 500 }, () => newOrder()),
    )
    expect(results.every(({ status }) => status === 'rejected')).toBe(true)
    expect(statements).toBe(1)
  },
)
