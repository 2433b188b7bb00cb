import { describe, expect, test } from 'vitest'
import { newKey, ORDER, type Reply, send, sign } from '../support/client.ts'
import { createTestStores, startInstance, startService } from '../support/service.ts'
import { hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

/** Sends requests one after the other. */
async function sendInTurn(count: number, one: (index: number) => Promise<Reply>): Promise<Reply[]> {
  const replies = []
  for (let index = 0; index < count; index++) replies.push(await one(index))
  return replies
}

const DEFAULT_LIMIT = { RATE_LIMIT_MAX: '10' }
const COUNTER = 'order-once:rate-limit:127.0.0.1'

describe.each(hasRedis ? ['memory', 'redis'] : ['memory'])('the rate limit in %s', (kind) => {
  const redis = kind === 'redis'

  test('refuses the eleventh request in a minute with 429, on eleven connections', async () => {
    const { port, countOrders } = await startService({ redis, env: DEFAULT_LIMIT })
    const replies = await sendInTurn(11, () => send(port))
    expect(replies.slice(0, 10).map(({ status }) => status)).toEqual(Array(10).fill(201))
    expect(replies[10]).toMatchObject({ status: 429, json: { code: 'rate-limit-exceeded' } })
    expect(await countOrders()).toBe(10)
  })

  test('sends X-RateLimit-* headers, and Retry-After with a refusal', async () => {
    const { port } = await startService({ redis, env: { RATE_LIMIT_MAX: '1' } })
    const [first, second] = await sendInTurn(2, () => send(port))
    expect(first?.headers).toMatchObject({
      'x-ratelimit-limit': '1',
      'x-ratelimit-remaining': '0',
      'x-ratelimit-reset': expect.stringMatching(/^([1-5]?\d|60)$/),
    })
    expect(first?.headers['retry-after']).toBeUndefined()
    expect(second?.headers).toMatchObject({
      'x-ratelimit-limit': '1',
      'x-ratelimit-remaining': '0',
      'retry-after': expect.stringMatching(/^[1-9]\d?$/),
    })
  })

  test('counts each of the requests of one turn of the event loop', async () => {
    const { app } = await startService({ redis, env: DEFAULT_LIMIT })
    const payload = JSON.stringify(ORDER)
    const replies = await Promise.all(
      Array.from({ length: 15 }, () =>
        app.inject({
          method: 'POST',
          url: '/orders',
          payload,
          headers: {
            'content-type': 'application/json',
            'idempotency-key': newKey(),
            'x-signature': sign(payload),
          },
        }),
      ),
    )
    const remaining = replies.map(({ headers }) => Number(headers['x-ratelimit-remaining']))
    expect(remaining.sort((a, b) => b - a)).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0])
    expect(replies.filter(({ statusCode }) => statusCode === 429)).toHaveLength(5)
  })

  test('counts replays and refused requests, too', async () => {
    const { port } = await startService({ redis, env: DEFAULT_LIMIT })
    const key = newKey()
    const replies = [
      await send(port, { key }),
      await send(port, { key }),
      await send(port, { key: null }),
      await send(port, { body: '{bad' }),
      await send(port, { key, body: { user_id: 'other', item: 'book', amount: 1 } }),
    ]
    expect(replies.map(({ status }) => status)).toEqual([201, 201, 400, 400, 409])
    expect(replies.map(({ headers }) => headers['x-ratelimit-remaining'])).toEqual([
      '9',
      '8',
      '7',
      '6',
      '5',
    ])
  })

  test('does not count unsigned requests', async () => {
    const { port } = await startService({ redis, env: { RATE_LIMIT_MAX: '1' } })
    await sendInTurn(5, () => send(port, { signature: null }))
    expect((await send(port)).status).toBe(201)
  })

  test('reads X-Forwarded-For only from a proxy that TRUST_PROXY names', async () => {
    const from = (address: string) => ({ headers: { 'x-forwarded-for': address } })
    const trusting = await startService({
      redis,
      env: { RATE_LIMIT_MAX: '1', TRUST_PROXY: '127.0.0.1' },
    })
    expect((await send(trusting.port, from('203.0.113.1'))).status).toBe(201)
    expect((await send(trusting.port, from('203.0.113.2'))).status).toBe(201)
    expect((await send(trusting.port, from('203.0.113.1'))).status).toBe(429)

    const other = await startService({ redis, env: { RATE_LIMIT_MAX: '1' } })
    expect((await send(other.port, from('203.0.113.1'))).status).toBe(201)
    expect((await send(other.port, from('203.0.113.2'))).status).toBe(429)
  })

  test('finds the client behind proxies that append a port to the address of the one before', async () => {
    const { port } = await startService({
      redis,
      env: { RATE_LIMIT_MAX: '1', TRUST_PROXY: '127.0.0.1,147.243.0.0/16,2001:db8::/32' },
    })
    const from = (addresses: string) =>
      send(port, { headers: { 'x-forwarded-for': addresses } }).then(({ status }) => status)
    expect(await from('203.0.113.1, 147.243.1.1:4433')).toBe(201)
    expect(await from('203.0.113.2:99, [2001:db8::1]:4433, 147.243.1.1')).toBe(201)
    expect(await from('203.0.113.2, 147.243.1.1:4433')).toBe(429)
    expect(await from('203.0.113.3, 198.51.100.1, 147.243.1.1')).toBe(201)
    expect(await from('203.0.113.4, 198.51.100.1:1, 147.243.1.1')).toBe(429) // not a trusted proxy
  })

  test('identifies a client by its address, also if its proxy adds a port or sends no address', async () => {
    const { port } = await startService({
      redis,
      env: { RATE_LIMIT_MAX: '1', TRUST_PROXY: '127.0.0.1' },
    })
    const from = (address: string) => send(port, { headers: { 'x-forwarded-for': address } })
    expect((await from('203.0.113.1')).status).toBe(201)
    expect((await from('203.0.113.1:5678')).status).toBe(429)
    expect((await from('2001:db8::1')).status).toBe(201)
    expect((await from('[2001:db8::2]:443')).status).toBe(429) // of the same /64
    expect((await from('nonsense')).status).toBe(201)
    expect((await from('other nonsense')).status).toBe(429)
  })
})

test('RATE_LIMIT_MAX=off limits no signed request, and sends no limit headers', async () => {
  const { port } = await startService({ env: { RATE_LIMIT_MAX: 'off' } })
  const replies = await sendInTurn(15, () => send(port))
  expect(replies.map(({ status }) => status)).toEqual(Array(15).fill(201))
  expect(replies[0]?.headers['x-ratelimit-limit']).toBeUndefined()
})

test('RATE_LIMIT_MAX=off does not switch off the limit of wrong signatures', async () => {
  const { port } = await startService({
    env: { RATE_LIMIT_MAX: 'off', SIGNATURE_FAILURES_MAX: '2' },
  })
  const replies = await sendInTurn(3, () => send(port, { signature: null }))
  expect(replies.map(({ status }) => status)).toEqual([401, 401, 429])
})

test('each client has a count of its own', async () => {
  const { port } = await startService({ env: { RATE_LIMIT_MAX: '1', TRUST_PROXY: '127.0.0.1' } })
  const from = (address: string) => send(port, { headers: { 'x-forwarded-for': address } })
  const clients = ['203.0.113.1', '203.0.113.2', '2001:db8:1::1', '2001:db8:2::1']
  for (const client of clients) expect((await from(client)).status).toBe(201)
  for (const client of clients) expect((await from(client)).status).toBe(429)
})

describe.runIf(hasRedis)('the rate limit on Redis', () => {
  test('begins a new window when the last one has ended', async () => {
    const { port, redisSpace } = await startService({ redis: true, env: { RATE_LIMIT_MAX: '1' } })
    expect((await send(port)).status).toBe(201)
    await redisSpace?.redis.pexpire(COUNTER, 1)
    await until(async () => (await redisSpace?.redis.exists(COUNTER)) === 0)
    expect((await send(port)).status).toBe(201)
  })

  test('refuses a client beyond its limit until its window ends, and not longer', async () => {
    const { port, redisSpace } = await startService({ redis: true, env: { RATE_LIMIT_MAX: '1' } })
    await until(async () => {
      await redisSpace?.redis.set(COUNTER, 1, 'PX', 100) // a window that ends soon
      return (await send(port)).status === 429
    })
    await until(async () => (await send(port)).status === 201)
  })

  test('is shared by all instances', async () => {
    const stores = await createTestStores()
    const [one, other] = [
      await startInstance(stores, { env: DEFAULT_LIMIT }),
      await startInstance(stores, { env: DEFAULT_LIMIT }),
    ]
    const replies = await sendInTurn(11, (i) => send(i % 2 ? one.port : other.port))
    expect(replies.filter(({ status }) => status === 429)).toHaveLength(1)
    expect(replies[10]?.status).toBe(429)
  })

  test('does not call Redis for a client that has exceeded it, until its window ends', async () => {
    const { port, redisSpace } = await startService({ redis: true, env: { RATE_LIMIT_MAX: '2' } })
    const replies = await sendInTurn(6, () => send(port))
    expect(replies.map(({ status }) => status)).toEqual([201, 201, 429, 429, 429, 429])
    // The third request exceeded it; for the others Redis was not called.
    expect(await redisSpace?.redis.get(COUNTER)).toBe('3')
    await redisSpace?.redis.pexpire(COUNTER, 1)
    expect((await send(port)).headers).toMatchObject({ 'x-ratelimit-remaining': '0' })
  })

  test('counts each request exactly over two instances, also with a large limit', async () => {
    const stores = await createTestStores()
    const env = { RATE_LIMIT_MAX: '100000' }
    const [one, other] = [
      await startInstance(stores, { env }),
      await startInstance(stores, { env }),
    ]
    await stores.redisSpace?.redis.set(COUNTER, 99_990, 'EX', 60)
    const replies = await sendInTurn(30, (i) => send(i % 2 ? one.port : other.port))
    expect(replies.filter(({ status }) => status === 201)).toHaveLength(10)
    const remaining = replies.map(({ headers }) => Number(headers['x-ratelimit-remaining']))
    expect(remaining.slice(0, 10)).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
  })

  test('is counted in the process while Redis fails', async () => {
    const { port, redisSpace, app } = await startService({ redis: true, env: DEFAULT_LIMIT })
    // A counter of a wrong type makes every count fail, as a read-only or full Redis does.
    await redisSpace?.redis.lpush(COUNTER, 'not a number')
    const replies = await sendInTurn(11, () => send(port))
    expect(replies.map(({ status }) => status)).toEqual([...Array(10).fill(201), 429])
    expect(app.server.listening).toBe(true)
  })
})
