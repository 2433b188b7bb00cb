import { describe, expect, test } from 'vitest'
import { newKey, ORDER, type Reply, send, sign } from '../support/client.ts'
import { createTestStores, startInstance, startService } from '../support/service.ts'
import { hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

async function inTurn(count: number, one: (index: number) => Promise<Reply>): Promise<Reply[]> {
  const replies = []
  for (let index = 0; index < count; index++) replies.push(await one(index))
  return replies
}

const DEFAULT_LIMIT = { RATE_LIMIT_MAX: '10' }
const COUNTER = 'order-once:rate-limit:127.0.0.1'

describe.each(hasRedis ? ['memory', 'redis'] : ['memory'])('the rate limit in %s', (kind) => {
  const redis = kind === 'redis'

  test('answers 429 to the eleventh request in a minute, on eleven connections', async () => {
    const { port, countOrders } = await startService({ redis, env: DEFAULT_LIMIT })
    const replies = await inTurn(11, () => send(port))
    expect(replies.slice(0, 10).map(({ status }) => status)).toEqual(Array(10).fill(201))
    expect(replies[10]).toMatchObject({ status: 429, json: { code: 'rate-limit-exceeded' } })
    expect(await countOrders()).toBe(10)
  })

  test('says when to come back: Retry-After and X-RateLimit-*', async () => {
    const { port } = await startService({ redis, env: { RATE_LIMIT_MAX: '1' } })
    const [first, second] = await inTurn(2, () => send(port))
    expect(first?.headers).toMatchObject({
      'x-ratelimit-limit': '1',
      'x-ratelimit-remaining': '0',
      'x-ratelimit-reset': expect.stringMatching(/^(59|60)$/),
    })
    expect(first?.headers['retry-after']).toBeUndefined()
    expect(second?.headers).toMatchObject({
      'x-ratelimit-limit': '1',
      'x-ratelimit-remaining': '0',
      'retry-after': expect.stringMatching(/^[1-9]\d?$/),
    })
  })

  test('counts the requests of one moment one by one', async () => {
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

  test('counts replays and refused requests too, and tells so on each of them', async () => {
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
    await inTurn(5, () => send(port, { signature: null }))
    expect((await send(port)).status).toBe(201)
  })

  test('believes X-Forwarded-For only from a proxy that TRUST_PROXY names', async () => {
    const from = (address: string) => ({ headers: { 'x-forwarded-for': address } })
    const trusting = await startService({
      redis,
      env: { RATE_LIMIT_MAX: '1', TRUST_PROXY: '127.0.0.1' },
    })
    expect((await send(trusting.port, from('203.0.113.1'))).status).toBe(201)
    expect((await send(trusting.port, from('203.0.113.2'))).status).toBe(201)
    expect((await send(trusting.port, from('203.0.113.1'))).status).toBe(429)

    const doubting = await startService({ redis, env: { RATE_LIMIT_MAX: '1' } })
    expect((await send(doubting.port, from('203.0.113.1'))).status).toBe(201)
    expect((await send(doubting.port, from('203.0.113.2'))).status).toBe(429)
  })

  test('knows a client by its address, whatever port or nonsense its proxy adds', async () => {
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

  test('begins anew with the next window', async () => {
    const { port } = await startService({
      redis,
      env: { RATE_LIMIT_MAX: '1', RATE_LIMIT_WINDOW_SECONDS: '1' },
    })
    const [, second] = await inTurn(2, () => send(port))
    expect(second?.status).toBe(429)
    await until(async () => (await send(port)).status === 201)
  })
})

test('RATE_LIMIT_MAX=off lets every signed request pass, without limit headers', async () => {
  const { port } = await startService({ env: { RATE_LIMIT_MAX: 'off' } })
  const replies = await inTurn(15, () => send(port))
  expect(replies.map(({ status }) => status)).toEqual(Array(15).fill(201))
  expect(replies[0]?.headers['x-ratelimit-limit']).toBeUndefined()
})

test('RATE_LIMIT_MAX=off does not switch off the limit of wrong signatures', async () => {
  const { port } = await startService({
    env: { RATE_LIMIT_MAX: 'off', SIGNATURE_FAILURES_MAX: '2' },
  })
  const replies = await inTurn(3, () => send(port, { signature: null }))
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
  test('is one for all instances', async () => {
    const stores = await createTestStores()
    const [one, other] = [
      await startInstance(stores, { env: DEFAULT_LIMIT }),
      await startInstance(stores, { env: DEFAULT_LIMIT }),
    ]
    const replies = await inTurn(11, (i) => send(i % 2 ? one.port : other.port))
    expect(replies.filter(({ status }) => status === 429)).toHaveLength(1)
    expect(replies[10]?.status).toBe(429)
  })

  test('costs Redis nothing for a client that is beyond it, until its window ends', async () => {
    const { port, redisSpace } = await startService({ redis: true, env: { RATE_LIMIT_MAX: '2' } })
    const replies = await inTurn(6, () => send(port))
    expect(replies.map(({ status }) => status)).toEqual([201, 201, 429, 429, 429, 429])
    // The third one found out; the others were known.
    expect(await redisSpace?.redis.get(COUNTER)).toBe('3')
    await redisSpace?.redis.pexpire(COUNTER, 1)
    expect((await send(port)).headers).toMatchObject({ 'x-ratelimit-remaining': '0' })
  })

  test('counts each request of a large limit exactly, whichever instance it reaches', async () => {
    const stores = await createTestStores()
    const env = { RATE_LIMIT_MAX: '100000' }
    const [one, other] = [
      await startInstance(stores, { env }),
      await startInstance(stores, { env }),
    ]
    await stores.redisSpace?.redis.set(COUNTER, 99_990, 'EX', 60)
    const replies = await inTurn(30, (i) => send(i % 2 ? one.port : other.port))
    expect(replies.filter(({ status }) => status === 201)).toHaveLength(10)
    const remaining = replies.map(({ headers }) => Number(headers['x-ratelimit-remaining']))
    expect(remaining.slice(0, 10)).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
  })

  test('refuses without claiming a key', async () => {
    const { port, redisSpace } = await startService({ redis: true, env: { RATE_LIMIT_MAX: '1' } })
    const key = newKey()
    await send(port)
    expect((await send(port, { key })).status).toBe(429)
    expect(await redisSpace?.redis.exists(`idemp:${key}`)).toBe(0)
  })

  test('goes on in the process while Redis does not answer', async () => {
    const { port, redisSpace, app } = await startService({ redis: true, env: DEFAULT_LIMIT })
    // A counter of a wrong type makes every count fail, as a read-only or full Redis does.
    await redisSpace?.redis.lpush(COUNTER, 'not a number')
    const replies = await inTurn(11, () => send(port))
    expect(replies.map(({ status }) => status)).toEqual([...Array(10).fill(201), 429])
    expect(app.server.listening).toBe(true)
  })
})
