import { beforeEach, describe, expect, test } from 'vitest'
import { createMemoryStore } from '../../src/idempotency/memory-store.ts'
import { createRedisStore } from '../../src/idempotency/redis-store.ts'
import type { Answer, IdempotencyStore } from '../../src/idempotency/store.ts'
import { emptiedRedisSpace, hasRedis } from '../support/stores.ts'

const LEASE_MS = 30_000
const TTL_MS = 86_400_000
const OPTIONS = { leaseMs: LEASE_MS, ttlMs: TTL_MS }

/** An empty store, and a way to let time pass for it. */
interface Fixture {
  store: IdempotencyStore
  pass(ms: number): Promise<unknown>
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
  ...(hasRedis && {
    redis: async () => {
      const { redis } = await emptiedRedisSpace()
      return {
        store: createRedisStore(redis, OPTIONS),
        pass: async (ms) => redis.pexpire(KEY, (await redis.pttl(KEY)) - ms),
      }
    },
  }),
}

const key = 'key-001'
const KEY = `idemp:${key}`
const answer: Answer = {
  statusCode: 201,
  headers: { 'content-type': 'application/json; charset=utf-8' },
  body: '{"order":{"item":"b\u00f6\ud83d\ude00k \\"token\\":\\"x\\""}}',
}
const request = { fingerprint: 'v1:a', answer }

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
    expect(await store.claim(key, 'v1:b', 'other')).toEqual({ state: 'mismatch' })
    await store.complete(key, 'token', request)
    expect(await store.claim(key, 'v1:b', 'other')).toEqual({ state: 'mismatch' })
    expect(await store.claim(key, 'v1:a', 'again')).toEqual({ state: 'completed', answer })
  })

  test('frees an abandoned key', async () => {
    await store.claim(key, 'v1:a', 'token')
    await store.abandon(key, 'token')
    expect(await store.claim(key, 'v1:b', 'other')).toEqual({ state: 'new' })
  })

  test('lets nobody but the owner complete or abandon', async () => {
    await store.claim(key, 'v1:a', 'token')
    await store.abandon(key, 'other')
    await store.complete(key, 'other', { ...request, fingerprint: 'v1:b' })
    expect(await store.claim(key, 'v1:a', 'third')).toEqual({ state: 'in_flight' })
  })

  test('keeps the first answer: neither its owner nor anyone changes or drops it', async () => {
    await store.claim(key, 'v1:a', 'token')
    await store.complete(key, 'token', request)
    await store.complete(key, 'token', { ...request, answer: { ...answer, body: 'other' } })
    await store.abandon(key, 'token')
    expect(await store.claim(key, 'v1:a', 'again')).toEqual({ state: 'completed', answer })
  })

  test('takes an answer for a key that it has forgotten', async () => {
    await store.complete(key, 'token', request)
    expect(await store.claim(key, 'v1:a', 'again')).toEqual({ state: 'completed', answer })
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
    await store.abandon(key, 'old')
    expect(await store.claim(key, 'v1:b', 'third')).toEqual({ state: 'in_flight' })
    await store.complete(key, 'new', { ...request, fingerprint: 'v1:b' })
    await store.complete(key, 'old', request)
    expect(await store.claim(key, 'v1:b', 'third')).toEqual({ state: 'completed', answer })
  })

  test('replays an answer for its time, which replays do not extend', async () => {
    await store.complete(key, 'token', request)
    await pass(TTL_MS - 1_000)
    expect(await store.claim(key, 'v1:a', 'again')).toEqual({ state: 'completed', answer })
    await pass(1_000)
    expect(await store.claim(key, 'v1:a', 'again')).toEqual({ state: 'new' })
  })
})

describe.runIf(hasRedis)('the redis store', () => {
  test('keeps a mark that a person can read, for one lease', async () => {
    const { redis } = await emptiedRedisSpace()
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

  test('keeps an answer that a person can read, for its time, which a replay leaves as it is', async () => {
    const { redis } = await emptiedRedisSpace()
    const store = createRedisStore(redis, OPTIONS)
    await store.claim(key, 'v1:a', 'token-1')
    await store.complete(key, 'token-1', request)
    expect(JSON.parse((await redis.get(KEY)) ?? '')).toEqual({
      state: 'completed',
      status_code: 201,
      headers: answer.headers,
      response: answer.body,
      payload_hash: 'v1:a',
      created_at: expect.any(String),
    })
    const expiry = await redis.pexpiretime(KEY)
    expect(await redis.pttl(KEY)).toBeGreaterThan(86_000_000)
    await store.claim(key, 'v1:a', 'again')
    expect(await redis.pexpiretime(KEY)).toBe(expiry)
  })
})
