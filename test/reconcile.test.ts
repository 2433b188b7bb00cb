import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { fingerprintCanonical } from '../packages/idempotency/src/fingerprint.ts'
import { createRecordFormat } from '../packages/idempotency/src/stores/record.ts'
import { findHistoryChange } from '../src/failover-watch.ts'
import { canonicalizeOrder, type NewOrder } from '../src/orders/schema.ts'
import { type FoundOrder, type ReconcileOptions, reconcile } from '../src/reconcile.ts'
import { migrateDatabase } from '../src/stores/migrate.ts'
import { newKey, send } from './support/client.ts'
import { PostgresNode, postgresPrograms, urlOfHosts } from './support/postgres-node.ts'
import { redisServer, startPrivateRedis } from './support/private-redis.ts'
import { hasFullDevice, runBinary, runBinaryOnFullDisk } from './support/process.ts'
import { createTestStores, startInstance } from './support/service.ts'
import { SILENT_LOG } from './support/silent-log.ts'
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
      ...{ remembered: 3, missing: 0, restored: 0, conflicts: 0, notUnderstood: 0 },
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

  test('counts an order as there that another run restores at the same time', async () => {
    await createOrders()
    await database.sql`delete from orders`
    const runs: ReturnType<typeof runReconcile>[] = []
    await database.sql.begin(async (sql) => {
      await sql`lock table orders in share mode` // inserts wait for it
      for (let i = 0; i < 2; i++) runs.push(runReconcile({ apply: true }))
      await until(async () => {
        const waiting = await sql`
          select from pg_locks where not granted and relation = 'orders'::regclass`
        return waiting.length === 2
      })
    })
    const reports = (await Promise.all(runs)).map(({ report }) => report)
    expect(reports).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ missing: 3, restored: 3 }),
        expect.objectContaining({ missing: 0, restored: 0 }),
      ]),
    )
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

  test('ignores claims, the records of other databases and the keys of the health check', async () => {
    const { redis } = redisSpace
    await createOrders(ORDERS.slice(0, 1))
    const record = JSON.parse((await redis.get('idemp:Key-1')) as string)
    await redis.set('idemp:foreign', JSON.stringify({ ...record, database: 'another' }))
    const { formatClaim } = createRecordFormat({ database: instance.databaseId })
    await redis.set('idemp:health check 1', '1')
    await redis.set('idemp:claim', formatClaim('v1:', 't'))
    expect((await runReconcile({ apply: true })).report).toEqual({
      ...{ remembered: 1, missing: 0, restored: 0, conflicts: 0, notUnderstood: 0 },
    })
  })

  describe('counts what the service cannot have made, and restores the orders beside it:', () => {
    type Members = Record<string, unknown>
    let record: Members

    /** Stores a record as that of the order `Key-1`, with other members. */
    async function storeRecord(members: Members, change: Members = {}, name = 'bad') {
      const body = { user_id: 'u', item: 'i', amount: 1, ...members }
      const order = {
        id: randomUUID(),
        ...{ user_id: body.user_id, item: body.item, amount: body.amount },
        ...{ idempotency_key: name.split(',').at(-1), created_at: new Date().toISOString() },
        ...members,
      }
      const canonical = canonicalizeOrder(body as unknown as NewOrder)
      await redisSpace.redis.set(
        `idemp:${name}`,
        JSON.stringify({
          ...record,
          response: JSON.stringify({ order }),
          payload_hash: fingerprintCanonical('POST', '/orders', canonical),
          ...change,
        }),
      )
    }

    beforeEach(async () => {
      await createOrders(ORDERS.slice(0, 1))
      record = JSON.parse((await redisSpace.redis.get('idemp:Key-1')) as string)
      await database.sql`delete from orders`
    })

    const expectNotUnderstood = async () => {
      expect((await runReconcile({ apply: true })).report).toEqual({
        ...{ remembered: 1, missing: 1, restored: 1, conflicts: 0, notUnderstood: 1 },
      })
    }

    test('(a record that the service can have made is understood)', async () => {
      await storeRecord({})
      expect((await runReconcile({ apply: true })).report).toMatchObject({ restored: 2 })
    })

    test.each<[string, Members]>([
      ['an id that is no UUID', { id: 'x' }],
      ['an id in upper case', { id: randomUUID().toUpperCase() }],
      ['an id in an array', { id: [randomUUID()] }],
      ['an object as a text', { user_id: { a: 1 } }],
      ['NUL', { item: 'a\0' }],
      ['a lone surrogate', { item: 'a\ud800' }],
      ['a text that is too long', { item: 'a'.repeat(256) }],
      ['an amount that is too large', { amount: 1e30 }],
      ['an amount that the column rounds to 0', { amount: 1e-9 }],
      ['an amount with five decimals', { amount: 1.00001 }],
      ['a time that Postgres does not have', { created_at: '+275760-09-13T00:00:00.000Z' }],
      ['a time before all orders', { created_at: '0000-01-01T00:00:00.000Z' }],
      ['a time in another form', { created_at: '2026-01-01T00:00:00Z' }],
      ['a time that cannot be converted to a text', { created_at: { toString: null } }],
      ['another key', { idempotency_key: 'another' }],
      ['a member more', { note: 'n' }],
    ])('%s', async (_, members) => {
      await storeRecord(members)
      await expectNotUnderstood()
    })

    test.each<[string, Members]>([
      ['another status', { status_code: 500 }],
      ['another fingerprint', { payload_hash: 'v1:\0' }],
      ['no JSON in it', { response: '{' }],
      ['null', { response: 'null' }],
      ['an encoding', { encoding: 'base64' }],
    ])('a response with %s', async (_, change) => {
      await storeRecord({}, change)
      await expectNotUnderstood()
    })

    test.each([
      'a'.repeat(9_000),
      'a\0',
      'a\u001b[2J',
      'a"',
      'shop 1,a',
      'shop\0,a',
      ',a',
      'default,a',
      'shop,shop,a',
      `${'a'.repeat(65)},a`,
    ])('the name %j', async (name) => {
      await storeRecord({}, {}, name)
      await expectNotUnderstood()
    })

    test('a truncated record, malformed UTF-8, and values that are no strings', async () => {
      const { redis } = redisSpace
      await storeRecord({ item: 'ITEM' })
      const text = (await redis.get('idemp:bad')) as string
      await redis.set('idemp:bad', text.slice(0, -10))
      const [start, end] = text.split('ITEM') as [string, string]
      const bytes = [Buffer.from(start), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from(end)]
      await redis.set('idemp:bad-1', Buffer.concat(bytes))
      await redis.set(Buffer.from([...Buffer.from('idemp:bad-'), 0xff]), text)
      await redis.rpush('idemp:list', 'a')
      await redis.hset('idemp:hash', 'a', 'b')
      expect((await runReconcile({ apply: true })).report).toMatchObject({
        ...{ remembered: 1, restored: 1, notUnderstood: 5 },
      })
    })
  })

  test('does not read values as a whole that are too large for a record', async () => {
    const server = await startPrivateRedis()
    onTestFinished(() => server.stop())
    const redis = new Redis(server.url)
    onTestFinished(() => redis.disconnect())
    const readSentBytes = async () =>
      Number(/total_net_output_bytes:(\d+)/.exec(await redis.info('stats'))?.[1])
    for (let n = 0; n < 10; n++) await redis.set(`idemp:large-${n}`, 'x'.repeat(4_000_000))
    const before = await readSentBytes()
    const target = { databaseUrl: database.url, databaseId: instance.databaseId }
    const report = await reconcile(target, server.url, { apply: true })
    expect(report).toMatchObject({ remembered: 0, notUnderstood: 10 })
    expect((await readSentBytes()) - before).toBeLessThan(4_000_000)
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
      await redisSpace.redis.set('idemp:truncated', '{"state":"comp')
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
        stdout: `missing ${id} ${created_at} client default key Key-1\nRemembered orders: 1. Missing in Postgres: 1. Restored: 0. Conflicts: 0. Not understood: 0.\nTo restore missing orders, add --apply.\n`,
        stderr: '',
      })
      expect(await run('--apply', '--since', '2026-01-01T00:00:00Z')).toEqual({
        code: 0,
        stdout: `restored ${id} ${created_at} client default key Key-1\nRemembered orders: 1. Missing in Postgres: 1. Restored: 1. Conflicts: 0. Not understood: 0.\n`,
        stderr: '',
      })
      expect(await run()).toMatchObject({ code: 0 })
    })

    test('prints no control character of a name, and counts what it does not understand', async () => {
      await createLostOrders(1)
      await redisSpace.redis.rename('idemp:key-0', 'idemp:\u001b[2J,key-0')
      expect(await run()).toEqual({
        code: 0,
        stdout:
          'Remembered orders: 1. Missing in Postgres: 0. Restored: 0. Conflicts: 0. Not understood: 1.\n',
        stderr: '',
      })
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
      [['--since', '2026-02-30T00:00:00Z'], '--since must be a time such as'],
      [['--since', '2026-02-29T00:00:00+01:00'], '--since must be a time such as'],
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
      expect(stderr).toBe(
        'the reconciliation did not end: Redis at 127.0.0.1:1 cannot be used: connect ECONNREFUSED 127.0.0.1:1\n',
      )
    })
  })
})

describe.runIf(postgresPrograms !== undefined && redisServer !== undefined)(
  'the reconciliation with several hosts',
  () => {
    test('fails if the standby is promoted during the run, and the next run restores the orders on it', async () => {
      const primary = await PostgresNode.startPrimary()
      onTestFinished(() => primary.remove())
      const standby = await primary.addStandby()
      onTestFinished(() => standby.remove())
      const server = await startPrivateRedis()
      onTestFinished(() => server.stop())
      const redis = new Redis(server.url)
      onTestFinished(() => redis.disconnect())
      const databaseUrl = urlOfHosts(primary, standby)
      await migrateDatabase(databaseUrl, SILENT_LOG)
      const { port, databaseId } = await startInstance({
        database: { url: databaseUrl },
        redisSpace: server,
      })
      await send(port, { key: 'lost' })
      await until(async () => (await redis.get('idemp:lost'))?.includes('completed'))
      await primary.administer((sql) => sql`delete from orders`)

      const run = () => reconcile({ databaseUrl, databaseId }, server.url, { apply: true })
      let first: Promise<unknown> | undefined
      await primary.administer((admin) =>
        admin.begin(async (sql) => {
          await sql`lock table orders in share mode` // inserts wait for it
          first = run().catch((error) => error)
          await until(async () => {
            const waiting = await sql`
              select from pg_locks where not granted and relation = 'orders'::regclass`
            return waiting.length === 1
          })
          await standby.promote() // and the former primary is not fenced
        }),
      )
      expect(await first).toEqual(
        new Error(
          'Postgres was failed over during the run, and restored orders may be missing again: run order-once reconcile again',
        ),
      )
      const readKeys = () => standby.administer((sql) => sql`select idempotency_key from orders`)
      expect(await readKeys()).toEqual([])
      expect(await run()).toMatchObject({ missing: 1, restored: 1 })
      expect(await readKeys()).toEqual([{ idempotency_key: 'lost' }])
    })
  },
)
