import { describe, expect, test } from 'vitest'
import { cleanUp } from '../../src/clean-up.ts'
import { newKey, ORDER, type Send, send } from '../support/client.ts'
import { type TestClient, writeClientsFile } from '../support/clients-file.ts'
import { createKey, type SigningKey } from '../support/message-signature.ts'
import { scrape } from '../support/scrape.ts'
import { createTestStores, startInstance, startService } from '../support/service.ts'
import { hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

const SHOP_1 = createKey('shop-1-key')
const SHOP_2 = createKey('shop-2-key', 'hmac-sha256')
const DEFAULT = createKey('default-key', 'ecdsa-p256-sha256')
const CLIENTS: TestClient[] = [
  { id: 'shop-1', keys: [SHOP_1] },
  { id: 'shop-2', keys: [SHOP_2] },
  { id: 'default', keys: [DEFAULT] },
]
const SECRET = 'a secret of the default client'

const createEnv = async (env: Record<string, string> = {}, clients = CLIENTS) => ({
  CLIENTS_FILE: await writeClientsFile(clients),
  HMAC_SECRET: SECRET,
  ...env,
})

/** Requests of each client; the last one signs with `X-Signature`. */
const SIGNERS: Record<string, Send> = {
  'shop-1': { signingKey: SHOP_1 },
  'shop-2': { signingKey: SHOP_2 },
  default: { secret: SECRET },
}

describe.each([...(hasRedis ? ['redis'] : []), 'postgres', 'memory'])(
  'clients with records in %s',
  (store) => {
    const redis = store === 'redis'
    const start = async () =>
      startService({ redis, env: await createEnv({ IDEMPOTENCY_STORE: store }) })

    test('have keys of their own: the same key is an order for each of them, and its replays are theirs', async () => {
      const { port, countOrders, database } = await start()
      const key = newKey()
      const orders = new Map<string, string>()
      for (const [client, signer] of Object.entries(SIGNERS)) {
        const reply = await send(port, { ...signer, key })
        expect(reply.status).toBe(201)
        expect(reply.headers['idempotency-replayed']).toBeUndefined()
        orders.set(client, reply.text)
      }
      expect(new Set(orders.values()).size).toBe(3)
      expect(await countOrders()).toBe(3)
      // from the store, and then from the memory of the process
      for (let i = 0; i < 3; i++) {
        for (const [client, signer] of Object.entries(SIGNERS)) {
          const replay = await until(async () => {
            const reply = await send(port, { ...signer, key })
            return reply.status === 201 && reply
          })
          expect(replay.headers['idempotency-replayed']).toBe('true')
          expect(replay.text).toBe(orders.get(client))
        }
      }
      const rows = await database.sql`select client_id, id from orders`
      for (const { client_id, id } of rows) expect(orders.get(client_id)).toContain(id)
    })

    test('are not disturbed by another body under the same key of another client', async () => {
      const { port } = await start()
      const key = newKey()
      const body = { ...ORDER, amount: 1 }
      expect((await send(port, { ...SIGNERS['shop-1'], key })).status).toBe(201)
      expect((await send(port, { ...SIGNERS['shop-2'], key, body })).status).toBe(201)
      expect((await send(port, { ...SIGNERS['shop-1'], key, body })).status).toBe(409)
    })

    test('move from X-Signature to keys for the id default: a retry across the move is a replay', async () => {
      const { port, countOrders } = await start()
      const key = newKey()
      const first = await send(port, { secret: SECRET, key })
      const retry = await send(port, { signingKey: DEFAULT, key })
      expect(retry).toMatchObject({ status: 201, text: first.text })
      expect(retry.headers['idempotency-replayed']).toBe('true')
      const back = await send(port, { secret: SECRET, key })
      expect(back.text).toBe(first.text)
      expect(await countOrders()).toBe(1)
    })
  },
)

describe.runIf(hasRedis)('with Redis', () => {
  test('the records are named idemp:<key> for the default client and idemp:<client>,<key> for others', async () => {
    const { port, redisSpace } = await startService({ redis: true, env: await createEnv() })
    for (const signer of Object.values(SIGNERS)) await send(port, { ...signer, key: 'key-001' })
    await until(async () => ((await redisSpace?.redis.keys('idemp:*')) ?? []).length === 3)
    expect((await redisSpace?.redis.keys('idemp:*'))?.sort()).toEqual([
      'idemp:key-001',
      'idemp:shop-1,key-001',
      'idemp:shop-2,key-001',
    ])
  })

  test('an order of each client is rebuilt from Postgres when Redis has lost it', async () => {
    const { port, redisSpace } = await startService({ redis: true, env: await createEnv() })
    const key = newKey()
    for (const signer of Object.values(SIGNERS)) {
      const first = await send(port, { ...signer, key })
      await redisSpace?.flush()
      const replay = await send(port, { ...signer, key })
      expect(replay).toMatchObject({ status: 201, text: first.text })
      expect(replay.headers['idempotency-replayed']).toBe('true')
    }
  })

  test('the clean-up releases the keys of all clients, and deletes their records', async () => {
    const { port, database, redisSpace } = await startService({
      redis: true,
      env: await createEnv(),
    })
    for (const signer of Object.values(SIGNERS)) await send(port, { ...signer, key: 'old' })
    const countRecords = async () => (await redisSpace?.redis.keys('idemp:*'))?.length
    await until(async () => (await countRecords()) === 3)
    await database.sql`update orders set created_at = now() - interval '9 days'`
    const stores = { databaseUrl: database.url, redisUrl: redisSpace?.url }
    expect(await cleanUp(stores, { keyRetentionDays: 5 })).toMatchObject({ releasedKeys: 3 })
    expect(await countRecords()).toBe(0)
  })
})

test('the clean-up deletes the records that Postgres has of all clients', async () => {
  const env = await createEnv({ IDEMPOTENCY_STORE: 'postgres' })
  const { port, database } = await startService({ env })
  for (const signer of Object.values(SIGNERS)) await send(port, { ...signer, key: 'old' })
  const readRecords = () => database.sql`select key from idempotency_records order by key`
  await until(async () => (await readRecords()).length === 3)
  await database.sql`update orders set created_at = now() - interval '9 days'`
  await cleanUp({ databaseUrl: database.url, redisUrl: undefined }, { keyRetentionDays: 5 })
  expect(await readRecords()).toEqual([])
})

describe.each(hasRedis ? ['memory', 'redis'] : ['memory'])('the rate limit in %s', (kind) => {
  const redis = kind === 'redis'
  const limited = (id: string, key: SigningKey, rate_limit_max: number) => ({
    ...{ id, keys: [key], rate_limit_max },
  })

  async function countUntilRefused(port: number, signer: Send): Promise<number> {
    for (let accepted = 0; ; accepted++) {
      if ((await send(port, signer)).status === 429) return accepted
    }
  }

  test('is that of each client: its own, or RATE_LIMIT_MAX', async () => {
    const clients = [limited('shop-1', SHOP_1, 5), { id: 'shop-2', keys: [SHOP_2] }]
    const env = await createEnv({ RATE_LIMIT_MAX: '3' }, clients)
    const { port, redisSpace } = await startService({ redis, env })
    const limits = await send(port, { signingKey: SHOP_1 })
    expect(limits.headers).toMatchObject({ 'x-ratelimit-limit': '5', 'x-ratelimit-remaining': '4' })
    expect(await countUntilRefused(port, { signingKey: SHOP_1 })).toBe(4)
    expect(await countUntilRefused(port, { signingKey: SHOP_2 })).toBe(3)
    expect(await countUntilRefused(port, { secret: SECRET })).toBe(3)
    if (!redis) return
    expect((await redisSpace?.redis.keys('order-once:rate-limit:*'))?.sort()).toEqual([
      'order-once:rate-limit:127.0.0.1',
      'order-once:rate-limit:client:shop-1',
      'order-once:rate-limit:client:shop-2',
    ])
  })

  test('counts the default client by address in both schemes, unless it has a limit of its own', async () => {
    const env = await createEnv({ RATE_LIMIT_MAX: '3' })
    const { port } = await startService({ redis, env })
    expect((await send(port, { signingKey: DEFAULT })).status).toBe(201)
    expect(await countUntilRefused(port, { secret: SECRET })).toBe(2)

    const own = await createEnv({ RATE_LIMIT_MAX: '3' }, [limited('default', DEFAULT, 6)])
    const other = await startService({ redis, env: own })
    expect((await send(other.port, { signingKey: DEFAULT })).status).toBe(201)
    expect(await countUntilRefused(other.port, { secret: SECRET })).toBe(5)
  })

  test('counts only clients with a limit of their own if RATE_LIMIT_MAX is off', async () => {
    const clients = [limited('shop-1', SHOP_1, 2), { id: 'shop-2', keys: [SHOP_2] }]
    const env = await createEnv({ RATE_LIMIT_MAX: 'off' }, clients)
    const { port } = await startService({ redis, env })
    expect(await countUntilRefused(port, { signingKey: SHOP_1 })).toBe(2)
    for (const signer of [{ signingKey: SHOP_2 }, { secret: SECRET }]) {
      const { status, headers } = await send(port, signer)
      expect(status).toBe(201)
      expect(Object.keys(headers).filter((name) => name.startsWith('x-ratelimit'))).toEqual([])
    }
  })

  test('of a client whose id looks like an address is apart from that address', async () => {
    const clients = [{ id: '127.0.0.1', keys: [SHOP_1] }]
    const env = await createEnv({ RATE_LIMIT_MAX: '2' }, clients)
    const { port } = await startService({ redis, env })
    expect(await countUntilRefused(port, { signingKey: SHOP_1 })).toBe(2)
    expect(await countUntilRefused(port, { secret: SECRET })).toBe(2)
  })

  test('of a client is not used up by wrong signatures in its name, which count for the address', async () => {
    const env = await createEnv({ RATE_LIMIT_MAX: '2', SIGNATURE_FAILURES_MAX: '3' })
    const { port } = await startService({ redis, env })
    const forged = { ...createKey('forged'), kid: SHOP_1.kid }
    const statuses = []
    for (let i = 0; i < 5; i++) statuses.push((await send(port, { signingKey: forged })).status)
    expect(statuses).toEqual([401, 401, 401, 429, 429])
    expect(await countUntilRefused(port, { signingKey: SHOP_1 })).toBe(2)
  })
})

test('the log and the outcomes metric name the client', async () => {
  const { port, logLines } = await startService({ env: await createEnv() })
  for (const signer of Object.values(SIGNERS)) await send(port, signer)
  await send(port, { signature: null })
  const lines = () => logLines.filter(({ msg }) => msg === 'request')
  await until(() => lines().length === 4)
  expect(lines().map(({ client }) => client)).toEqual(['shop-1', 'shop-2', 'default', undefined])
  const { value } = await scrape(port)
  for (const client of Object.keys(SIGNERS)) {
    expect(value('order_once_idempotency_outcomes_total', { client, outcome: 'new' })).toBe(1)
  }
})

test.runIf(hasRedis)('two instances share the keys and the limits of a client', async () => {
  const stores = await createTestStores()
  const env = await createEnv({ RATE_LIMIT_MAX: '3' })
  const [a, b] = [await startInstance(stores, { env }), await startInstance(stores, { env })]
  const key = newKey()
  const first = await send(a.port, { signingKey: SHOP_1, key })
  const replay = await until(async () => {
    const reply = await send(b.port, { signingKey: SHOP_1, key })
    return reply.headers['idempotency-replayed'] === 'true' && reply
  })
  expect(replay.text).toBe(first.text)
  expect(Number(replay.headers['x-ratelimit-remaining'])).toBeLessThan(2)
})
