import { randomUUID } from 'node:crypto'
import { beforeEach, describe, expect, test } from 'vitest'
import { createRecordFormat } from '../packages/idempotency/src/stores/record.ts'
import { findHistoryChange } from '../src/failover-watch.ts'
import { type FoundOrder, type ReconcileOptions, reconcile } from '../src/reconcile.ts'
import { newKey, send } from './support/client.ts'
import { hasFullDevice, runBinary, runBinaryOnFullDisk } from './support/process.ts'
import { createTestStores, startInstance } from './support/service.ts'
import { hasRedis } from './support/stores.ts'
import { until } from './support/until.ts'

type TestStores = Awaited<ReturnType<typeof createTestStores>>
type Instance = Awaited<ReturnType<typeof startInstance>>

let database: TestStores['database']
let redisSpace: NonNullable<TestStores['redisSpace']>
let instance: Instance

const ORDERS = [
  { key: 'Key-1', body: { user_id: 'u "\\ 1', item: 'Stück\n🍰\u0001', amount: 0.0001 } },
  { key: "k'$*;1", body: { user_id: 'u', item: 'i', amount: 99_999_999_999.9999 } },
  { key: newKey(), body: { user_id: 'u', item: '{"a":[null]}', amount: 5 } },
]

/** Creates the orders, and waits until Redis remembers them. @returns their responses */
async function createOrders(orders = ORDERS) {
  const responses = await Promise.all(orders.map((order) => send(instance.port, order)))
  for (const { key } of orders) {
    await until(async () => (await redisSpace.redis.get(`idemp:${key}`))?.includes('completed'))
  }
  return responses
}

/** Makes Redis remember orders that Postgres does not have. */
async function createLostOrders(count: number) {
  await createOrders(ORDERS.slice(0, 1))
  const record = (await redisSpace.redis.get('idemp:Key-1')) as string
  const pipeline = redisSpace.redis.pipeline()
  for (let n = 0; n < count; n++) {
    const id = randomUUID()
    const copy = JSON.parse(record)
    const { order } = JSON.parse(copy.response)
    copy.response = JSON.stringify({ order: { ...order, id, idempotency_key: `key-${n}` } })
    pipeline.set(`idemp:key-${n}`, JSON.stringify(copy))
  }
  await pipeline.exec()
}

async function runReconcile(options: Partial<ReconcileOptions> = {}) {
  const found: FoundOrder[] = []
  const stores = { databaseUrl: database.url, databaseId: instance.databaseId }
  const report = await reconcile(stores, redisSpace.url, {
    ...{ apply: false, onMissing: (order) => void found.push(order) },
    ...options,
  })
  return { report, found }
}

const readRows = () => database.sql`select *, xmin from orders order by id`
const withoutVersion = (rows: Record<string, unknown>[]) => rows.map(({ xmin: _, ...row }) => row)

describe.runIf(hasRedis)('the reconciliation', () => {
  beforeEach(async () => {
    const stores = await createTestStores()
    database = stores.database
    redisSpace = stores.redisSpace as typeof redisSpace
    instance = await startInstance(stores)
  })

  test('finds nothing while Postgres has all orders', async () => {
    await createOrders()
    expect((await runReconcile({ apply: true })).report).toEqual({
      ...{ remembered: 3, missing: 0, restored: 0, conflicts: 0, unreadable: 0 },
    })
  })

  test('lists the orders that Postgres has lost, and changes nothing', async () => {
    const responses = await createOrders()
    await database.sql`delete from orders`
    const { report, found } = await runReconcile()
    expect(report).toMatchObject({ remembered: 3, missing: 3, restored: 0, conflicts: 0 })
    expect(found.map(({ order }) => order.id).sort()).toEqual(
      responses.map(({ json }) => json.order.id).sort(),
    )
    expect(await readRows()).toEqual([])
  })

  test('restores them to the byte: a repeat without Redis gets the first response', async () => {
    const responses = await createOrders()
    const before = withoutVersion(await readRows())
    await database.sql`delete from orders`
    expect((await runReconcile({ apply: true })).report).toMatchObject({ missing: 3, restored: 3 })
    expect(withoutVersion(await readRows())).toEqual(before)
    expect((await runReconcile({ apply: true })).report).toMatchObject({ missing: 0 })
    await redisSpace.flush()
    const other = await startInstance({ database, redisSpace })
    const repeats = await Promise.all(ORDERS.map((order) => send(other.port, order)))
    expect(repeats.map(({ text }) => text)).toEqual(responses.map(({ text }) => text))
    for (const { headers } of repeats) expect(headers['idempotency-replayed']).toBe('true')
  })

  test('restores an order of the client that the name of its record has', async () => {
    const [response] = await createOrders(ORDERS.slice(0, 1))
    await redisSpace.redis.rename('idemp:Key-1', 'idemp:shop-1,Key-1')
    await database.sql`delete from orders`
    await runReconcile({ apply: true })
    expect(await database.sql`select id, client_id, idempotency_key from orders`).toEqual([
      { id: response?.json.order.id, client_id: 'shop-1', idempotency_key: 'Key-1' },
    ])
  })

  test('reports a key that has another order with both ids, and overwrites nothing', async () => {
    const [response] = await createOrders(ORDERS.slice(0, 1))
    const otherId = randomUUID()
    await database.sql`update orders set id = ${otherId}`
    const before = await readRows()
    const { report, found } = await runReconcile({ apply: true })
    expect(report).toMatchObject({ missing: 1, restored: 0, conflicts: 1 })
    expect(found).toMatchObject([{ order: { id: response?.json.order.id }, otherId }])
    expect(await readRows()).toEqual(before)
  })

  test('counts an order whose key was released as there', async () => {
    await createOrders()
    await database.sql`update orders set released_key = idempotency_key, idempotency_key = null`
    expect((await runReconcile({ apply: true })).report).toMatchObject({ missing: 0 })
  })

  test('leaves out orders that are older than a time', async () => {
    const [response] = await createOrders(ORDERS.slice(0, 1))
    await database.sql`delete from orders`
    const since = Date.parse(response?.json.order.created_at)
    expect((await runReconcile({ since: since + 1 })).report).toMatchObject({ remembered: 0 })
    expect((await runReconcile({ since })).report).toMatchObject({ missing: 1 })
  })

  test('ignores claims and the records of other databases, and counts what is no order', async () => {
    const { redis } = redisSpace
    const { databaseId } = instance
    const response = (body: string) => ({ statusCode: 201, headers: {}, body })
    const formatRecord = (database: string, body: string) =>
      createRecordFormat({ database }).formatCompleted({
        fingerprint: 'v1:',
        response: response(body),
      })
    const [{ text } = { text: '' }] = await createOrders(ORDERS.slice(0, 1))
    await redis.set('idemp:foreign', formatRecord('another', text))
    await redis.set(
      'idemp:claim',
      createRecordFormat({ database: databaseId }).formatClaim('v1:', 't'),
    )
    await redis.set('idemp:corrupt', 'no JSON')
    await redis.set('idemp:another-key', formatRecord(databaseId, text))
    await redis.set('idemp:no-order', formatRecord(databaseId, '{}'))
    // Responses that Postgres cannot have, in the form of ours.
    const created_at = '2026-01-01T00:00:00.000Z'
    const forged = [
      { id: 'x', user_id: 'u', item: 'i', amount: 1 },
      { id: randomUUID(), user_id: { a: 1 }, item: 'i', amount: 1 },
      { id: randomUUID(), user_id: 'u', item: 'i', amount: 1e30 },
    ]
    for (const [i, members] of forged.entries()) {
      const order = { ...members, idempotency_key: `forged-${i}`, created_at }
      await redis.set(`idemp:forged-${i}`, formatRecord(databaseId, JSON.stringify({ order })))
    }
    expect((await runReconcile({ apply: true })).report).toEqual({
      ...{ remembered: 1, missing: 0, restored: 0, conflicts: 0, unreadable: 5 },
    })
  })

  test('reads thousands of records in steps, and reports its progress', async () => {
    await createLostOrders(3_000)
    const steps: number[] = []
    const { report } = await runReconcile({
      apply: true,
      onProgress: (read) => void steps.push(read),
    })
    expect(report).toMatchObject({ missing: 3_000, restored: 3_000 })
    expect(steps.length).toBeGreaterThan(3)
    expect(steps).toEqual(steps.toSorted((a, b) => a - b))
  })

  describe('after the history of the database was interrupted', () => {
    const findChange = () => {
      const { databaseId } = instance
      const stores = { databaseUrl: database.url, databaseId, isEmbedded: false }
      return findHistoryChange({ ...stores, redisUrl: redisSpace.url }, redisSpace.url)
    }

    /** Makes Redis know another history than that of the database. */
    async function changeHistory(change: Record<string, string>) {
      const name = `order-once:history:${instance.databaseId}`
      const known = JSON.parse((await redisSpace.redis.get(name)) as string)
      await redisSpace.redis.set(name, JSON.stringify({ ...known, ...change }))
    }

    test.each([
      [{ timeline: '0000001F' }, 'timeline 1, before 31'],
      [{ system: '1' }, 'it is another server than before'],
      [{ lsn: 'FF/0' }, 'its log ended at FF/0 before'],
    ])('(%j) it is found until a complete run ends it', async (change, message) => {
      expect(await findChange()).toBeUndefined()
      await createOrders()
      expect(await findChange()).toBeUndefined()
      await changeHistory(change)
      expect(await findChange()).toBe(message)
      await database.sql`delete from orders`
      await runReconcile()
      expect(await findChange()).toBe(message)
      await runReconcile({ apply: true, since: 0 })
      expect(await findChange()).toBe(message)
      await runReconcile({ apply: true })
      expect(await findChange()).toBeUndefined()
    })
  })

  describe('as the command order-once reconcile', () => {
    const createEnv = () => ({ DATABASE_URL: database.url, REDIS_URL: redisSpace.url })
    const run = (...args: string[]) => runBinary(['reconcile', ...args], createEnv())

    test('exits with 1 while orders are missing, and with 0 once they are restored', async () => {
      const [response] = await createOrders(ORDERS.slice(0, 1))
      const { id, created_at } = response?.json.order ?? {}
      await database.sql`delete from orders`
      expect(await run()).toEqual({
        code: 1,
        stdout: `missing ${id} ${created_at} client default key Key-1\nRemembered orders: 1. Missing in Postgres: 1. Restored: 0. Conflicts: 0.\nTo restore missing orders, add --apply.\n`,
        stderr: '',
      })
      expect(await run('--apply', '--since', '2026-01-01T00:00:00Z')).toEqual({
        code: 0,
        stdout: `restored ${id} ${created_at} client default key Key-1\nRemembered orders: 1. Missing in Postgres: 1. Restored: 1. Conflicts: 0.\n`,
        stderr: '',
      })
      expect(await run()).toMatchObject({ code: 0 })
    })

    test('prints each missing order, however many', async () => {
      await createLostOrders(3_000)
      const { code, stdout } = await run()
      expect(code).toBe(1)
      expect(stdout.match(/^missing /gm)).toHaveLength(3_000)
      expect(stdout).toMatch(/\nTo restore missing orders, add --apply\.\n$/)
    })

    test.runIf(hasFullDevice)('exits with 1 and one line if its output cannot be written', () => {
      const { code, stderr } = runBinaryOnFullDisk(['reconcile'], createEnv())
      expect(code).toBe(1)
      expect(stderr).toMatch(/^order-once: the output could not be written: ENOSPC.*\n$/)
    })

    test('exits with 1 while there are conflicts', async () => {
      await createOrders(ORDERS.slice(0, 1))
      await database.sql`update orders set id = gen_random_uuid()`
      const [row] = await database.sql`select id from orders`
      const { code, stdout } = await run('--apply')
      expect(code).toBe(1)
      expect(stdout).toMatch(/^conflict .* client default key Key-1; the key has the order /)
      expect(stdout).toContain(`the key has the order ${row?.id}\n`)
    })

    test.each([
      [
        ['--since', 'yesterday'],
        '--since must be a time such as 2026-11-26T05:00:00Z, not "yesterday"',
      ],
      [['--since', '2026-11-26T05:00:00'], '--since must be a time such as'],
      [['--force'], "Unknown option '--force'"],
    ])('exits with 2 and one line for %j', async (args, message) => {
      const { code, stdout, stderr } = await run(...args)
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
      expect(stderr).toContain(`order-once reconcile: ${message}`)
      expect(stderr.match(/\n/g)).toHaveLength(1)
    })

    test('prints its help', async () => {
      expect(await run('--help')).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(/^Usage: /),
      })
    })

    test('exits with 1 and one line without Redis, and if Redis does not respond', async () => {
      const env = { DATABASE_URL: database.url }
      expect(await runBinary(['reconcile'], env)).toEqual({
        code: 1,
        stdout: '',
        stderr:
          'the reconciliation did not end: there is no REDIS_URL: nothing remembers what Postgres has lost\n',
      })
      const { code, stderr } = await runBinary(['reconcile'], {
        ...env,
        REDIS_URL: 'redis://127.0.0.1:1',
      })
      expect(code).toBe(1)
      expect(stderr).toMatch(/^the reconciliation did not end: .*\n$/)
    })
  })
})
