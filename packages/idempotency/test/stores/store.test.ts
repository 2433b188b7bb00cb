import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { emptyDatabase, emptyRedisSpace, hasRedis } from '../../../../test/support/stores.ts'
import { createMemoryStore } from '../../src/stores/memory-store.ts'
import { createPostgresStore } from '../../src/stores/postgres-store.ts'
import { createRedisStore } from '../../src/stores/redis-store.ts'
import type { IdempotencyStore, StoredResponse } from '../../src/stores/store.ts'

const LEASE_MS = 30_000
const TTL_MS = 86_400_000
const reports: string[] = []
const report = (key: string) => void reports.push(key)
const OPTIONS = { leaseMs: LEASE_MS, ttlMs: TTL_MS, report }

/** An empty store, and a way to let time pass for it. */
interface Fixture {
  store: IdempotencyStore
  pass(ms: number): Promise<unknown>
  /** puts a record under the key that says this; not for a process's own memory */
  corrupt?(text: string): Promise<unknown>
}

const fixtures: Record<string, () => Promise<Fixture>> = {
  memory: async () => {
    let now = 0
    return {
      store: createMemoryStore({ ...OPTIONS, now: () => now }),
      pass: async (ms) => {
        now += ms
      },
    }
  },
  postgres: async () => {
    const { url, sql } = await emptyDatabase()
    const database = drizzle(postgres(url))
    onTestFinished(() => database.$client.end())
    return {
      store: createPostgresStore(database, OPTIONS),
      pass: (ms) =>
        sql`update idempotency_records set expires_at = expires_at - ${`${ms} milliseconds`}::interval`,
      corrupt: (text) => sql`
        insert into idempotency_records (key, fingerprint, token, response, expires_at)
        values (${key}, 'v1:a', 'token', ${text}, now() + interval '1 hour')`,
    }
  },
  ...(hasRedis && {
    redis: async () => {
      const { redis } = await emptyRedisSpace()
      return {
        store: createRedisStore(redis, OPTIONS),
        pass: async (ms) => redis.pexpire(KEY, (await redis.pttl(KEY)) - ms),
        corrupt: (text) => redis.set(KEY, text),
      }
    },
  }),
}

const key = 'key-001'
const KEY = `idemp:${key}`
const response: StoredResponse = {
  statusCode: 201,
  headers: { 'content-type': 'application/json; charset=utf-8' },
  body: '{"order":{"item":"b\u00f6\ud83d\ude00k \\"token\\":\\"x\\""}}',
}
const request = { fingerprint: 'v1:a', response }

describe.each(Object.keys(fixtures))('the %s store', (name) => {
  let store: IdempotencyStore
  let pass: Fixture['pass']

  beforeEach(async () => {
    ;({ store, pass } = await (fixtures[name] as () => Promise<Fixture>)())
  })

  test('gives a free key to one of 200 claims at once', async () => {
    const claims = await Promise.all(
      Array.from({ length: 200 }, (_, i) => store.claim(key, 'v1:a', `token-${i}`)),
    )
    expect(claims.filter(({ state }) => state === 'new')).toHaveLength(1)
    expect(claims.filter(({ state }) => state === 'in_flight')).toHaveLength(199)
  })

  test('knows its own claim when it is sent again', async () => {
    await store.claim(key, 'v1:a', 'token')
    expect(await store.claim(key, 'v1:a', 'token')).toEqual({ state: 'new' })
  })

  test('tells another request under the key, in flight and answered, and changes nothing', async () => {
    await store.claim(key, 'v1:a', 'token')
    const claimOther = () => store.claim(key, 'v1:b', 'other')
    expect(await claimOther()).toEqual({ state: 'mismatch', isCompleted: false })
    await store.complete(key, 'token', request)
    expect(await claimOther()).toEqual({ state: 'mismatch', isCompleted: true })
    expect(await store.claim(key, 'v1:a', 'again')).toMatchObject({ state: 'completed', response })
  })

  test('frees an abandoned key', async () => {
    await store.claim(key, 'v1:a', 'token')
    await store.release(key, 'token')
    expect(await store.claim(key, 'v1:b', 'other')).toEqual({ state: 'new' })
  })

  test('lets nobody but the owner complete or release', async () => {
    await store.claim(key, 'v1:a', 'token')
    await store.release(key, 'other')
    await store.complete(key, 'other', { ...request, fingerprint: 'v1:b' })
    expect(await store.claim(key, 'v1:a', 'third')).toEqual({ state: 'in_flight' })
  })

  test('keeps the first response: neither its owner nor anyone changes or drops it', async () => {
    await store.claim(key, 'v1:a', 'token')
    await store.complete(key, 'token', request)
    await store.complete(key, 'token', { ...request, response: { ...response, body: 'other' } })
    await store.release(key, 'token')
    expect(await store.claim(key, 'v1:a', 'again')).toMatchObject({ state: 'completed', response })
  })

  test('takes an response for a key that it has forgotten', async () => {
    await store.complete(key, 'token', request)
    expect(await store.claim(key, 'v1:a', 'again')).toMatchObject({ state: 'completed', response })
  })

  test('holds a claim for its lease, and not longer', async () => {
    await store.claim(key, 'v1:a', 'token')
    await pass(LEASE_MS - 1_000)
    expect(await store.claim(key, 'v1:a', 'other')).toEqual({ state: 'in_flight' })
    await pass(1_000)
    expect(await store.claim(key, 'v1:a', 'other')).toEqual({ state: 'new' })
  })

  test('fences an owner whose lease has run out and whose key another has claimed', async () => {
    await store.claim(key, 'v1:a', 'old')
    await pass(LEASE_MS)
    await store.claim(key, 'v1:b', 'new')
    await store.complete(key, 'old', request)
    await store.release(key, 'old')
    expect(await store.claim(key, 'v1:b', 'third')).toEqual({ state: 'in_flight' })
    await store.complete(key, 'new', { ...request, fingerprint: 'v1:b' })
    await store.complete(key, 'old', request)
    expect(await store.claim(key, 'v1:b', 'third')).toMatchObject({ state: 'completed', response })
  })

  test('renews a claim that its owner sends again', async () => {
    await store.claim(key, 'v1:a', 'token')
    await pass(LEASE_MS - 1_000)
    expect(await store.claim(key, 'v1:a', 'token')).toEqual({ state: 'new' })
    await pass(LEASE_MS - 1_000)
    expect(await store.claim(key, 'v1:a', 'other')).toEqual({ state: 'in_flight' })
  })

  test('lets an owner complete whose lease ran out, if nobody has claimed the key since', async () => {
    await store.claim(key, 'v1:a', 'token')
    await pass(LEASE_MS)
    await store.complete(key, 'token', request)
    expect(await store.claim(key, 'v1:a', 'again')).toMatchObject({ state: 'completed', response })
  })

  test('does not claim again for an owner whose request was answered', async () => {
    await store.claim(key, 'v1:a', 'token')
    await store.complete(key, 'token', request)
    expect(await store.claim(key, 'v1:a', 'token')).toMatchObject({ state: 'completed', response })
  })

  test('gives an expired key to one of 200 claims at once', async () => {
    await store.claim(key, 'v1:a', 'dead')
    await pass(LEASE_MS)
    const claims = await Promise.all(
      Array.from({ length: 200 }, (_, i) => store.claim(key, 'v1:a', `token-${i}`)),
    )
    expect(claims.filter(({ state }) => state === 'new')).toHaveLength(1)
  })

  test.each([
    ['text', 'plain'],
    ['bytes', Buffer.from([0x00, 0xff, 0xc3, 0x28, 0x80, 0x0a])],
    ['nothing', ''],
  ])(
    'gives back a body of %s, and headers of several values, as they were',
    async (_name, body) => {
      const headers = { 'content-type': 'a/b', link: ['<a>; rel="x"', '<b>; rel="y"'] }
      const other = { statusCode: 202, headers, body }
      await store.complete(key, 'token', { ...request, response: other })
      expect(await store.claim(key, 'v1:a', 'again')).toMatchObject({
        state: 'completed',
        response: other,
      })
    },
  )

  test('keeps keys apart', async () => {
    await store.claim(key, 'v1:a', 'token')
    expect(await store.claim(`${key} `, 'v1:b', 'other')).toEqual({ state: 'new' })
  })

  test('replays an response for its time, which replays do not extend', async () => {
    await store.complete(key, 'token', request)
    await pass(TTL_MS - 1_000)
    expect(await store.claim(key, 'v1:a', 'again')).toMatchObject({ state: 'completed', response })
    await pass(1_000)
    expect(await store.claim(key, 'v1:a', 'again')).toEqual({ state: 'new' })
  })
})

describe.each(Object.keys(fixtures).filter((name) => name !== 'memory'))('the %s store', (name) => {
  test.each([
    '',
    'not JSON',
    '{"state":"completed"}',
    '{"state":"completed","status_code":"201","headers":{},"response":"","payload_hash":"","created_at":""}',
    '[]',
    'null',
  ])('takes the corrupt record %j for none, and reports it', async (text) => {
    const { store, corrupt } = await (fixtures[name] as () => Promise<Fixture>)()
    await corrupt?.(text)
    reports.length = 0
    expect(await store.claim(key, 'v1:b', 'token')).toEqual({ state: 'new' })
    expect(reports).toEqual([key])
    await store.complete(key, 'token', request)
    expect(await store.claim(key, 'v1:a', 'again')).toMatchObject({ state: 'completed', response })
  })
})

describe('the postgres store', () => {
  test('writes nothing for a replay, a duplicate or a mismatch', async () => {
    const { sql } = await emptyDatabase()
    const { store } = await (fixtures.postgres as () => Promise<Fixture>)()
    const version = async () =>
      (await sql`select xmin::text, expires_at from idempotency_records`)[0]
    await store.claim(key, 'v1:a', 'token')
    const claimed = await version()
    expect(await store.claim(key, 'v1:a', 'other')).toEqual({ state: 'in_flight' })
    expect(await store.claim(key, 'v1:b', 'other')).toMatchObject({ state: 'mismatch' })
    expect(await version()).toEqual(claimed)
    await store.complete(key, 'token', request)
    const completed = await version()
    expect(await store.claim(key, 'v1:a', 'other')).toMatchObject({ state: 'completed', response })
    expect(await version()).toEqual(completed)
  })
})

describe('the memory store', () => {
  const memory = (options: object) => createMemoryStore({ ...OPTIONS, ...options })
  const stateOf = async (store: IdempotencyStore, other: string) =>
    (await store.claim(other, 'v1:a', 'again')).state

  test('forgets the answers used longest ago beyond its number of entries', async () => {
    const store = memory({ maxEntries: 2 })
    for (const other of ['a', 'b', 'c']) await store.complete(other, 'token', request)
    expect(await stateOf(store, 'c')).toBe('completed')
    expect(await stateOf(store, 'b')).toBe('completed')
    expect(await stateOf(store, 'a')).toBe('new')
  })

  test('forgets the answers used longest ago beyond its number of bytes', async () => {
    const store = memory({ maxBytes: 25_000 })
    const large = { ...request, response: { ...response, body: 'x'.repeat(10_000) } }
    for (const other of ['a', 'b', 'c']) await store.complete(other, 'token', large)
    expect(await stateOf(store, 'c')).toBe('completed')
    expect(await stateOf(store, 'b')).toBe('completed')
    expect(await stateOf(store, 'a')).toBe('new')
  })

  test('does not remember an response that is larger than all its room', async () => {
    const store = memory({ maxBytes: 1_000 })
    await store.claim(key, 'v1:a', 'token')
    await store.complete(key, 'token', {
      ...request,
      response: { ...response, body: 'x'.repeat(2_000) },
    })
    expect(await stateOf(store, key)).toBe('new')
  })

  test('refuses a claim more than it has room for, rather than forget one', async () => {
    const store = memory({ maxEntries: 2 })
    await store.claim('a', 'v1:a', 'token')
    await store.claim('b', 'v1:a', 'token')
    await expect(store.claim('c', 'v1:a', 'token')).rejects.toThrow('too many keys')
    await store.release('a', 'token')
    expect(await store.claim('c', 'v1:a', 'token')).toEqual({ state: 'new' })
  })

  test('sweeps out what has expired, without being asked', async () => {
    vi.useFakeTimers()
    onTestFinished(() => void vi.useRealTimers())
    const store = memory({ now: () => Date.now(), maxEntries: 1 })
    await store.claim('a', 'v1:a', 'token')
    expect(vi.getTimerCount()).toBe(1)
    vi.advanceTimersByTime(LEASE_MS + 60_000)
    expect(vi.getTimerCount()).toBe(0)
    expect(await store.claim('b', 'v1:a', 'token')).toEqual({ state: 'new' })
  })
})

describe.runIf(hasRedis)('the redis store', () => {
  test('keeps a mark that a person can read, for one lease', async () => {
    const { redis } = await emptyRedisSpace()
    const store = createRedisStore(redis, OPTIONS)
    await store.claim(key, 'v1:a', 'token-1')
    expect(JSON.parse((await redis.get(KEY)) ?? '')).toEqual({
      state: 'in_flight',
      payload_hash: 'v1:a',
      token: 'token-1',
      created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    })
    expect(await redis.pttl(KEY)).toBeGreaterThan(25_000)
    expect(await redis.pttl(KEY)).toBeLessThanOrEqual(30_000)
  })

  test('keeps an response that a person can read, for its time, which a replay leaves as it is', async () => {
    const { redis } = await emptyRedisSpace()
    const store = createRedisStore(redis, OPTIONS)
    await store.claim(key, 'v1:a', 'token-1')
    await store.complete(key, 'token-1', request)
    expect(JSON.parse((await redis.get(KEY)) ?? '')).toEqual({
      state: 'completed',
      status_code: 201,
      headers: response.headers,
      response: response.body,
      payload_hash: 'v1:a',
      created_at: expect.any(String),
    })
    const expiry = await redis.pexpiretime(KEY)
    expect(await redis.pttl(KEY)).toBeGreaterThan(86_000_000)
    await store.claim(key, 'v1:a', 'again')
    expect(await redis.pexpiretime(KEY)).toBe(expiry)
  })

  test('claims the keys of one turn in one call, and remembers their answers in one more', async () => {
    const { redis } = await emptyRedisSpace()
    const store = createRedisStore(redis, OPTIONS)
    const claiming = vi.spyOn(redis, 'claimRecords')
    const completing = vi.spyOn(redis, 'completeRecords')
    onTestFinished(() => void vi.restoreAllMocks())
    const keys = Array.from({ length: 100 }, (_, i) => `key-${i}`)
    const claims = await Promise.all(keys.map((one) => store.claim(one, 'v1:a', `token-${one}`)))
    expect(claims).toEqual(keys.map(() => ({ state: 'new' })))
    await Promise.all(keys.map((one) => store.complete(one, `token-${one}`, request)))
    for (const one of keys) {
      expect(await store.claim(one, 'v1:a', 'again')).toMatchObject({
        state: 'completed',
        response,
      })
    }
    expect(completing).toHaveBeenCalledTimes(1)
    expect(claiming).toHaveBeenCalledTimes(1 + keys.length)
  })

  test('fails the claim of a key that is no string, and no other', async () => {
    const { redis } = await emptyRedisSpace()
    const store = createRedisStore(redis, OPTIONS)
    await redis.lpush(KEY, 'a list')
    const [bad, good] = await Promise.allSettled([
      store.claim(key, 'v1:a', 'token'),
      store.claim('key-002', 'v1:a', 'token'),
    ])
    expect(bad).toMatchObject({
      status: 'rejected',
      reason: { message: expect.stringContaining('WRONGTYPE') },
    })
    expect(good).toEqual({ status: 'fulfilled', value: { state: 'new' } })
    await Promise.all([
      store.complete(key, 'token', request),
      store.complete('key-002', 'token', request),
    ])
    expect(await store.claim('key-002', 'v1:a', 'again')).toMatchObject({ state: 'completed' })
    expect(await redis.lrange(KEY, 0, -1)).toEqual(['a list'])
  })

  test('tells for how long yet an response is remembered', async () => {
    const { redis } = await emptyRedisSpace()
    const store = createRedisStore(redis, OPTIONS)
    await store.complete(key, 'token', request)
    await redis.pexpire(KEY, 50_000)
    const claim = await store.claim(key, 'v1:a', 'again')
    const { remainingMs = 0 } = claim as { remainingMs?: number }
    expect(remainingMs).toBeGreaterThan(40_000)
    expect(remainingMs).toBeLessThanOrEqual(50_000)
  })
})
