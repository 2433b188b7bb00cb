import fc from 'fast-check'
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
import { SILENT_LOG } from '../support/silent-log.ts'
import { emptyDatabase } from '../support/stores.ts'
import { until } from '../support/until.ts'

const newOrder = (changes: Partial<OrderToInsert> = {}): OrderToInsert => ({
  ...ORDER,
  client_id: 'default',
  idempotency_key: newKey(),
  request_fingerprint: 'v1:a',
  ...changes,
})

/** Texts that mean something else in an array of Postgres unless they are quoted. */
const ARRAY_SYNTAX = ['NULL', '{}', '{a,b}', ',', '"', '\\', '\\"', ' a ', "'", 'null', '\n']

/** Reads an array of quoted texts without special characters, as Postgres writes them. */
const parseTextArray = (array: unknown): string[] => JSON.parse(`[${String(array).slice(1, -1)}]`)

/** Opens a repository on the test file's emptied database, and counts its queries. */
async function openRepository({ maxBatch = 500 } = {}) {
  const { url, sql } = await emptyDatabase()
  const pool = openPostgresPool(url, SILENT_LOG)
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

describe('orders that arrive at the same time', () => {
  test('are inserted by one statement, and each call returns its own', async () => {
    const { orders, sql, queries } = await openRepository()
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

  test('are inserted by a statement each if batches have one order', async () => {
    const { orders, sql, queries } = await openRepository({ maxBatch: 1 })
    await insertAll(
      orders,
      Array.from({ length: 20 }, () => newOrder()),
    )
    expect(queries()).toBe(20)
    expect(await sql`select 1 from orders`).toHaveLength(20)
  })

  test('with one key are one order, also in one batch', async () => {
    const { orders, sql } = await openRepository()
    const idempotencyKey = newKey()
    const all = Array.from({ length: 20 }, () => newOrder({ idempotency_key: idempotencyKey }))
    const results = await Promise.all(all.map((order) => orders.insertOnce(order)))
    expect(results.filter(({ inserted }) => inserted)).toHaveLength(1)
    expect(new Set(results.map(({ order }) => order.id)).size).toBe(1)
    expect(await sql`select 1 from orders`).toHaveLength(1)
  })

  test('with one key of two clients are two orders, also in one batch', async () => {
    const { orders, sql } = await openRepository()
    const key = newKey()
    const all = ['shop-1', 'shop-2', 'shop-1'].map((client_id) =>
      newOrder({ client_id, idempotency_key: key }),
    )
    const results = await Promise.all(all.map((order) => orders.insertOnce(order)))
    expect(results.map(({ inserted }) => inserted)).toEqual([true, true, false])
    expect(results[2]?.order).toEqual(results[0]?.order)
    expect(await orders.findByKey('shop-2', key)).toEqual(results[1]?.order)
    expect(await orders.findByKey('default', key)).toBeUndefined()
    expect(await sql`select client_id from orders order by 1`).toEqual([
      { client_id: 'shop-1' },
      { client_id: 'shop-2' },
    ])
  })

  test('get the existing orders of their keys, and create the others', async () => {
    const { orders, sql } = await openRepository()
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

  test('are inserted although Postgres refuses one of them', async () => {
    const { orders, sql } = await openRepository()
    // The body check refuses such orders before; Postgres would refuse the whole batch.
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

  test('are sent in the order of their keys: in other orders, two batches would deadlock', async () => {
    const keys = ['c', 'a', 'B', 'd', 'b', 'C']
    const sent: string[][][] = []
    const pool = {
      query: async (_text: string, columns: unknown[] = []) => {
        const [ids = [], clients = [], , , , keys = []] = columns.map(parseTextArray)
        sent.push(keys.map((key, i) => [key, clients[i] ?? '']))
        return ids.map((id) => ({ id, created_at: 0 }))
      },
    }
    const orders = createOrdersRepository(pool, { maxBatch: 500 })
    await insertAll(
      orders,
      ['shop-2', 'shop-1'].flatMap((client_id) =>
        keys.map((key) => newOrder({ client_id, idempotency_key: key })),
      ),
    )
    const sorted = ['B', 'C', 'a', 'b', 'c', 'd']
    expect(sent).toEqual([
      sorted.flatMap((key) => [
        [key, 'shop-1'],
        [key, 'shop-2'],
      ]),
    ])
  })

  test('with the same keys in other orders do not deadlock', async () => {
    const { url } = await emptyDatabase()
    const failures: unknown[] = []
    const instances = [1, 2, 3].map(() => {
      const pool = openPostgresPool(url, SILENT_LOG)
      onTestFinished(() => pool.close())
      const recording: PostgresPool = {
        ...pool,
        query: (text, values) =>
          pool.query(text, values).catch((error) => {
            failures.push(error)
            throw error
          }),
      }
      return createOrdersRepository(recording, { maxBatch: 500 })
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
    expect(failures).toEqual([])
  })

  test('are all created once, although their connection is lost during the insert', async () => {
    const { orders, sql } = await openRepository()
    await orders.insertOnce(newOrder()) // opens the connection
    const all = Array.from({ length: 50 }, () => newOrder())
    const locked = await sql.reserve()
    await locked`begin`
    await locked`lock table orders in share mode`
    const inserting = insertAll(orders, all)
    const findWaiting = async () =>
      (
        await sql`
          select pid from pg_stat_activity
          where wait_event_type = 'Lock' and application_name = 'order-once'
          and datname = current_database()`
      ).map(({ pid }) => pid)
    const pid = await until(async () => (await findWaiting())[0])
    await sql`select pg_terminate_backend(${pid})`
    await locked`commit`
    locked.release()
    const results = await inserting
    expect(results.map(({ status }) => status)).toEqual(all.map(() => 'fulfilled'))
    expect(await sql`select 1 from orders`).toHaveLength(51)
  })

  test('are refused at once when as many wait as can be inserted in time', async () => {
    const { url, sql } = await emptyDatabase()
    const pool = openPostgresPool(url, SILENT_LOG)
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

test('the response to a new order is the one that is rebuilt from its row', async () => {
  const { orders } = await openRepository()
  await fc.assert(
    fc.asyncProperty(fc.array(anyOrder, { minLength: 1, maxLength: 20 }), async (inputs) => {
      const all = inputs.map((input) => newOrder(input))
      const inserted = await Promise.all(all.map((order) => orders.insertOnce(order)))
      for (const { order } of inserted) {
        const found = await orders.findByKey('default', order.idempotency_key)
        expect(found && buildResponse(found)).toEqual(buildResponse(order))
      }
    }),
    { numRuns: 100, examples: [[ARRAY_SYNTAX.map((item) => ({ ...ORDER, item }))]] },
  )
})

describe('a row that belongs to another query', () => {
  /** Creates a repository whose driver returns the given row for any query. */
  function createWithWrongRow(row: Record<string, unknown>) {
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

  test('fails a look-up, and is counted', async () => {
    for (const row of [
      { client_id: 'shop-1', idempotency_key: 'another' },
      { client_id: 'shop-2', idempotency_key: 'mine' },
    ]) {
      const { orders, mismatches } = createWithWrongRow(row)
      await expect(orders.findByKey('shop-1', 'mine')).rejects.toThrow(RowMismatchError)
      expect(mismatches()).toBe(1)
    }
  })

  test('fails an insert, and is counted', async () => {
    const { orders, mismatches } = createWithWrongRow({ id: 'another', created_at: 0 })
    await expect(orders.insertOnce(newOrder())).rejects.toThrow(RowMismatchError)
    expect(mismatches()).toBe(1)
  })
})

test('each look-up returns its own order while a column of the table is altered', async () => {
  const { orders, sql } = await openRepository()
  const keys = Array.from({ length: 100 }, newKey)
  await insertAll(
    orders,
    keys.map((idempotencyKey) => newOrder({ idempotency_key: idempotencyKey })),
  )
  const findAll = () => Promise.all(keys.map((key) => orders.findByKey('default', key)))
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

test.each([1, 2, 3, 7, 64, 65])('a batch of %d orders inserts each of them once', async (count) => {
  const { orders, sql, queries } = await openRepository()
  const results = await insertAll(
    orders,
    Array.from({ length: count }, () => newOrder()),
  )
  expect(queries()).toBe(1)
  expect(results.every((result) => result.status === 'fulfilled' && result.value.inserted)).toBe(
    true,
  )
  expect(await sql`select 1 from orders`).toHaveLength(count)
})
