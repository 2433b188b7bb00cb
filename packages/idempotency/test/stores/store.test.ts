import { readFile } from 'node:fs/promises'
import { drizzle } from 'drizzle-orm/postgres-js'
import type { Redis } from 'ioredis'
import postgres from 'postgres'
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { mockClock } from '../../../../test/support/mock-clock.ts'
import {
  createEmptyDatabase,
  emptyDatabase,
  emptyRedisSpace,
  hasRedis,
} from '../../../../test/support/stores.ts'
import { until } from '../../../../test/support/until.ts'
import { lossTests, storeTests } from '../../src/conformance.ts'
import { DEFAULT_REPLAYED_HEADERS } from '../../src/replayed-headers.ts'
import { createMemoryStore } from '../../src/stores/memory-store.ts'
import { createPostgresStore, deleteExpiredRecords } from '../../src/stores/postgres-store.ts'
import type { RecordOptions } from '../../src/stores/record.ts'
import { createRedisStore } from '../../src/stores/redis-store.ts'
import {
  ForeignRecordError,
  type IdempotencyStore,
  type StoredResponse,
} from '../../src/stores/store.ts'

const LEASE_MS = 30_000
const TTL_MS = 86_400_000
/** Headers that look like the members of a claim. */
const CLAIM_LIKE_HEADERS = ['token', 'state', 'x-claim']
const reports: string[] = []
const OPTIONS = {
  leaseMs: LEASE_MS,
  ttlMs: TTL_MS,
  replayedHeaders: [...DEFAULT_REPLAYED_HEADERS, ...CLAIM_LIKE_HEADERS],
  reportCorruptRecord: (key: string) => void reports.push(key),
}

/** An empty store, and ways to age and to damage its record of `key`. */
interface Fixture {
  store: IdempotencyStore
  /** creates the store of another service, which shares the records */
  createStore?(options: RecordOptions): IdempotencyStore
  /** lets time pass */
  pass(ms: number): Promise<unknown>
  /** deletes the record */
  lose?(): Promise<unknown>
  /** replaces the record by this text */
  corrupt?(text: string): Promise<unknown>
}

/** A pool of connections, as an application would pass it to the store. */
function connect(url: string) {
  const pool = postgres(url)
  onTestFinished(() => pool.end())
  return (text: string, values: unknown[] = []) => pool.unsafe(text, values as never[])
}

const fixtures: Record<string, () => Promise<Fixture>> = {
  memory: async () => {
    const advanceClock = mockClock()
    return { store: createMemoryStore(OPTIONS), pass: async (ms) => advanceClock(ms) }
  },
  postgres: async () => {
    const { url, sql } = await emptyDatabase()
    const advanceClock = mockClock()
    const runQuery = connect(url)
    return {
      store: createPostgresStore(runQuery, OPTIONS),
      createStore: (options) => createPostgresStore(runQuery, { ...OPTIONS, ...options }),
      pass: (ms) => {
        advanceClock(ms)
        return sql`
          update idempotency_records
          set expires_at = expires_at - ${`${ms} milliseconds`}::interval`
      },
      lose: () => sql`delete from idempotency_records`,
      corrupt: (text) => sql`
        insert into idempotency_records (key, fingerprint, token, response, expires_at)
        values (${key}, 'v1:a', 'token', ${text}, now() + interval '1 hour')`,
    }
  },
  ...(hasRedis && {
    redis: async () => {
      const { redis } = await emptyRedisSpace()
      const advanceClock = mockClock()
      return {
        store: createRedisStore(redis, OPTIONS),
        createStore: (options) => createRedisStore(redis, { ...OPTIONS, ...options }),
        pass: async (ms) => {
          advanceClock(ms)
          return redis.pexpire(KEY, (await redis.pttl(KEY)) - ms)
        },
        lose: () => redis.del(KEY),
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
  body: '{"order":{"item":"b\u00f6\ud83d\ude00k"}}',
}
const request = { fingerprint: 'v1:a', response }

describe.each(Object.keys(fixtures))('the %s store', (name) => {
  let store: IdempotencyStore
  let pass: Fixture['pass']

  beforeEach(async () => {
    ;({ store, pass } = await (fixtures[name] as () => Promise<Fixture>)())
  })

  test.each(storeTests)('$name', ({ run }) => run({ store, pass }))

  const QUOTED_CLAIM = '{"state":"in_flight","payload_hash":"v1:a","token":"token"}'
  test.each([
    ['the text of a token', '{"token":"token"}'],
    ['a claim', QUOTED_CLAIM],
    ['a claim in a string', JSON.stringify(QUOTED_CLAIM)],
  ])(
    'does not take a response that contains %s, and such headers, for a claim',
    async (_name, body) => {
      const headers = { token: 'token', state: 'in_flight', 'x-claim': QUOTED_CLAIM }
      const quoting = { statusCode: 201, headers, body }
      await store.claim(key, 'v1:a', 'token')
      await store.complete(key, 'token', { fingerprint: 'v1:a', response: quoting })

      expect(await store.renew(key, 'v1:a', 'token')).toBe(false)
      await store.release(key, 'token')
      await store.complete(key, 'token', request)
      expect(await store.claim(key, 'v1:a', 'token')).toMatchObject({
        state: 'completed',
        response: quoting,
      })
    },
  )
})

describe.each(Object.keys(fixtures).filter((name) => name !== 'memory'))('the %s store', (name) => {
  test.each([
    '',
    'not JSON',
    '{"state":"completed"}',
    '{"state":"completed","status_code":"201","headers":{},"response":"","payload_hash":"","created_at":""}',
    '[]',
    'null',
  ])('ignores the corrupt record %j, and reports it', async (text) => {
    const { store, corrupt } = await (fixtures[name] as () => Promise<Fixture>)()
    await corrupt?.(text)
    reports.length = 0
    expect(await store.claim(key, 'v1:b', 'token')).toEqual({ state: 'new' })
    expect(reports).toEqual([key])
    await store.complete(key, 'token', request)
    expect(await store.claim(key, 'v1:a', 'again')).toMatchObject({ state: 'completed', response })
  })

  const completed = (changes: object) =>
    JSON.stringify({
      state: 'completed',
      status_code: 201,
      headers: response.headers,
      response: response.body,
      payload_hash: 'v1:a',
      created_at: '',
      ...changes,
    })
  test.each([
    ['the header Transfer-Encoding', { headers: { 'transfer-encoding': 'chunked' } }],
    ['the header Set-Cookie', { headers: { 'set-cookie': 'session=1' } }],
    ['the header Content-Length', { headers: { 'content-length': '1' } }],
    ['a header that is not replayed', { headers: { 'x-own': '1' } }],
    ['a replayed header in capital letters', { headers: { Location: '/' } }],
    ['the status 999999', { status_code: 999_999 }],
    ['an informational status', { status_code: 101 }],
    ['a status with a fraction', { status_code: 201.5 }],
    ['a line break in a header', { headers: { location: '/\r\nset-cookie: session=1' } }],
    ['a NUL in one of the values of a header', { headers: { link: ['<a>', '\0'] } }],
    ['a number as the value of a header', { headers: { etag: 1 } }],
  ])('never replays a record with %s, and reports it', async (_name, changes) => {
    const { store, corrupt } = await (fixtures[name] as () => Promise<Fixture>)()
    await corrupt?.(completed(changes))
    reports.length = 0
    expect(await store.claim(key, 'v1:a', 'token')).toEqual({ state: 'new' })
    expect(reports).toEqual([key])
  })

  test('replays a record that another program has written in its form', async () => {
    const { store, corrupt } = await (fixtures[name] as () => Promise<Fixture>)()
    await corrupt?.(completed({}))
    expect(await store.claim(key, 'v1:a', 'token')).toMatchObject({ state: 'completed', response })
  })

  test('believes no claim and no response of another database, and leaves them as they are', async () => {
    const { store, createStore, pass } = await (fixtures[name] as () => Promise<Fixture>)()
    const foreign: string[] = []
    const own = createStore?.({
      database: '11111111',
      reportForeignRecord: (key) => void foreign.push(key),
    }) as IdempotencyStore
    for (const other of [createStore?.({ database: '22222222' }) as IdempotencyStore, store]) {
      foreign.length = 0
      reports.length = 0
      await other.claim(key, 'v1:a', 'other')
      for (const fingerprint of ['v1:a', 'v1:b']) {
        await expect(own.claim(key, fingerprint, 'token')).rejects.toThrow(ForeignRecordError)
      }
      expect(await own.renew(key, 'v1:a', 'token')).toBe(false)
      await own.release(key, 'token')
      await own.complete(key, 'token', { ...request, response: { ...response, body: 'own' } })
      expect(await other.claim(key, 'v1:a', 'third')).toMatchObject({ state: 'in_flight' })

      await other.complete(key, 'other', request)
      await expect(own.claim(key, 'v1:a', 'token')).rejects.toThrow(ForeignRecordError)
      await own.complete(key, 'token', { ...request, response: { ...response, body: 'own' } })
      expect(await other.claim(key, 'v1:a', 'third')).toMatchObject({
        state: 'completed',
        response,
      })
      expect(foreign).toEqual([key, key, key])
      expect(reports).toEqual([])
      await pass(TTL_MS)
    }
    expect(await own.claim(key, 'v1:a', 'token')).toEqual({ state: 'new' })
  })

  test('believes the records of its own database, and without a database those of all', async () => {
    const { store, createStore } = await (fixtures[name] as () => Promise<Fixture>)()
    const [own, same] = [1, 2].map(() => createStore?.({ database: '11111111' }))
    await own?.claim(key, 'v1:a', 'token')
    for (const other of [same, store]) {
      expect(await other?.claim(key, 'v1:a', 'other')).toMatchObject({ state: 'in_flight' })
    }
    await own?.renew(key, 'v1:a', 'token')
    expect(await same?.claim(key, 'v1:a', 'other')).toMatchObject({ state: 'in_flight' })
    await own?.complete(key, 'token', request)
    for (const other of [same, store]) {
      expect(await other?.claim(key, 'v1:a', 'other')).toMatchObject({
        state: 'completed',
        response,
      })
    }
  })

  test.each(lossTests)('$name', async ({ run }) => {
    const { store, pass, lose } = await (fixtures[name] as () => Promise<Fixture>)()
    await run({ store, pass, lose: lose as () => unknown })
  })
})

describe.each(Object.keys(fixtures).filter((name) => name !== 'postgres'))(
  'the %s store',
  (name) => {
    test('notifies of a completion and of a release, and of no other key', async () => {
      const { store } = await (fixtures[name] as () => Promise<Fixture>)()
      const onChange = vi.fn()
      const stop = await store.watch?.(key, onChange)
      onChange.mockClear() // of the first connection
      for (const other of [key, 'other']) await store.claim(other, 'v1:a', 'token')
      await store.release('other', 'token')
      await store.release(key, 'token')
      await until(() => onChange.mock.calls.length === 1)
      await store.claim(key, 'v1:a', 'token')
      await store.complete(key, 'token', request)
      await until(() => onChange.mock.calls.length === 2)
      stop?.()
      expect(onChange).toHaveBeenCalledTimes(2)
    })
  },
)

describe('the postgres store', () => {
  test('writes nothing for a replay, a duplicate or a mismatch', async () => {
    const { sql } = await emptyDatabase()
    const { store } = await (fixtures.postgres as () => Promise<Fixture>)()
    const version = async () =>
      (await sql`select xmin::text, expires_at from idempotency_records`)[0]
    await store.claim(key, 'v1:a', 'token')
    const claimed = await version()
    expect(await store.claim(key, 'v1:a', 'other')).toMatchObject({ state: 'in_flight' })
    expect(await store.claim(key, 'v1:b', 'other')).toMatchObject({ state: 'mismatch' })
    expect(await version()).toEqual(claimed)
    await store.complete(key, 'token', request)
    const completed = await version()
    expect(await store.claim(key, 'v1:a', 'other')).toMatchObject({ state: 'completed', response })
    expect(await version()).toEqual(completed)
  })

  test.each(['renew', 'complete'] as const)(
    'sets the time of a record that %s takes over',
    async (method) => {
      const { sql } = await emptyDatabase()
      const { store } = await (fixtures.postgres as () => Promise<Fixture>)()
      await store.claim(key, 'v1:a', 'old')
      await sql`update idempotency_records set expires_at = now(), created_at = 'epoch'`
      if (method === 'renew') await store.renew(key, 'v1:a', 'token')
      else await store.complete(key, 'token', request)
      const ages = await sql`
        select now() - created_at < '1 hour' as is_new, token from idempotency_records`
      expect(ages).toEqual([{ is_new: true, token: 'token' }])
    },
  )

  test('works with the table of sql/idempotency-records.sql', async () => {
    const runQuery = connect(await createEmptyDatabase())
    const file = new URL('../../sql/idempotency-records.sql', import.meta.url)
    for (const statement of (await readFile(file, 'utf8')).split(';')) await runQuery(statement)
    const store = createPostgresStore(runQuery, OPTIONS)
    expect(await store.claim(key, 'v1:a', 'token')).toEqual({ state: 'new' })
    expect(await store.renew(key, 'v1:a', 'token')).toBe(true)
    await store.complete(key, 'token', request)
    expect(await store.claim(key, 'v1:a', 'again')).toMatchObject({ state: 'completed', response })
  })

  test('works with the client of drizzle', async () => {
    const { url } = await emptyDatabase()
    const { $client } = drizzle(postgres(url))
    onTestFinished(() => $client.end())
    const store = createPostgresStore((text, values) => $client.unsafe(text, values), OPTIONS)
    expect(await store.claim(key, 'v1:a', 'token')).toEqual({ state: 'new' })
    expect(await store.claim(key, 'v1:a', 'other')).toMatchObject({ state: 'in_flight' })
    await store.complete(key, 'token', request)
    expect(await store.claim(key, 'v1:a', 'again')).toMatchObject({ state: 'completed', response })
  })

  test('deletes expired records, as many as it is given as a limit', async () => {
    const { url, sql } = await emptyDatabase()
    const runQuery = connect(url)
    const store = createPostgresStore(runQuery, OPTIONS)
    for (const other of ['a', 'b', 'c']) await store.claim(other, 'v1:a', 'token')
    await sql`update idempotency_records set expires_at = now() where key <> 'c'`
    expect(await deleteExpiredRecords(runQuery, 1)).toBe(1)
    expect(await deleteExpiredRecords(runQuery, 10)).toBe(1)
    expect(await deleteExpiredRecords(runQuery, 10)).toBe(0)
    expect(await sql`select key from idempotency_records`).toEqual([{ key: 'c' }])
  })
})

describe('the memory store', () => {
  const createStore = (options: object) => createMemoryStore({ ...OPTIONS, ...options })
  const claimState = async (store: IdempotencyStore, other: string) =>
    (await store.claim(other, 'v1:a', 'again')).state

  test('drops the responses used longest ago beyond its number of entries', async () => {
    const store = createStore({ maxEntries: 2 })
    for (const other of ['a', 'b', 'c']) await store.complete(other, 'token', request)
    expect(await claimState(store, 'c')).toBe('completed')
    expect(await claimState(store, 'b')).toBe('completed')
    expect(await claimState(store, 'a')).toBe('new')
  })

  test('drops the responses used longest ago beyond its number of bytes', async () => {
    const store = createStore({ maxBytes: 25_000 })
    const large = { ...request, response: { ...response, body: 'x'.repeat(10_000) } }
    for (const other of ['a', 'b', 'c']) await store.complete(other, 'token', large)
    expect(await claimState(store, 'c')).toBe('completed')
    expect(await claimState(store, 'b')).toBe('completed')
    expect(await claimState(store, 'a')).toBe('new')
  })

  test('does not store a response that is larger than all its memory', async () => {
    const store = createStore({ maxBytes: 1_000 })
    await store.claim(key, 'v1:a', 'token')
    await store.complete(key, 'token', {
      ...request,
      response: { ...response, body: 'x'.repeat(2_000) },
    })
    expect(await claimState(store, key)).toBe('new')
  })

  test('refuses a claim beyond its number of entries, rather than drop one', async () => {
    const store = createStore({ maxEntries: 2 })
    await store.claim('a', 'v1:a', 'token')
    await store.claim('b', 'v1:a', 'token')
    await expect(store.claim('c', 'v1:a', 'token')).rejects.toThrow('too many keys')
    await store.release('a', 'token')
    expect(await store.claim('c', 'v1:a', 'token')).toEqual({ state: 'new' })
  })

  test('frees the memory of expired records by itself', async () => {
    vi.useFakeTimers()
    onTestFinished(() => void vi.useRealTimers())
    const store = createStore({ now: () => Date.now(), maxEntries: 1 })
    await store.claim('a', 'v1:a', 'token')
    expect(vi.getTimerCount()).toBe(1)
    vi.advanceTimersByTime(LEASE_MS + 60_000)
    expect(vi.getTimerCount()).toBe(0)
    expect(await store.claim('b', 'v1:a', 'token')).toEqual({ state: 'new' })
  })
})

/** @returns a function that counts the commands that the client has sent since */
function spyOnCommands(redis: Redis): () => number {
  const sendCommand = vi.spyOn(redis, 'sendCommand')
  onTestFinished(() => sendCommand.mockRestore())
  return () => sendCommand.mock.calls.length
}

describe.runIf(hasRedis)('the redis store', () => {
  test('deletes a record that is not even text', async () => {
    const { redis } = await emptyRedisSpace()
    const store = createRedisStore(redis, OPTIONS)
    await redis.set(KEY, Buffer.from([0xff, 0x00, 0xc3, 0x28]))
    reports.length = 0
    expect(await store.claim(key, 'v1:a', 'token')).toEqual({ state: 'new' })
    expect(reports).toEqual([key])
  })

  test('does not delete a record that has replaced a corrupt one, and ends its attempts', async () => {
    const { redis } = await emptyRedisSpace()
    const store = createRedisStore(redis, OPTIONS)
    await redis.set(KEY, 'corrupt')
    // Between the claim and the deletion the record is replaced by another corrupt one.
    const getBuffer = vi.spyOn(redis, 'getBuffer').mockResolvedValue(Buffer.from('other'))
    onTestFinished(() => getBuffer.mockRestore())
    await expect(store.claim(key, 'v1:a', 'token')).rejects.toThrow('could not be claimed')
    expect(await redis.get(KEY)).toBe('corrupt')
  })

  test('sets the expiry again with each renewal', async () => {
    const { redis } = await emptyRedisSpace()
    const store = createRedisStore(redis, OPTIONS)
    await store.claim(key, 'v1:a', 'token')
    await redis.pexpire(KEY, 1_000)
    expect(await store.renew(key, 'v1:a', 'token')).toBe(true)
    expect(await redis.pttl(KEY)).toBeGreaterThan(LEASE_MS - 5_000)
    expect(await redis.pttl(KEY)).toBeLessThanOrEqual(LEASE_MS)
  })

  test('keeps a claim that a person can read, for one lease', async () => {
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

  test('names its database in the claim and in the response', async () => {
    const { redis } = await emptyRedisSpace()
    const store = createRedisStore(redis, { ...OPTIONS, database: '1f0c93ab' })
    const readDatabase = async () => JSON.parse((await redis.get(KEY)) ?? '').database
    await store.claim(key, 'v1:a', 'token')
    expect(await readDatabase()).toBe('1f0c93ab')
    await store.renew(key, 'v1:a', 'token')
    expect(await readDatabase()).toBe('1f0c93ab')
    await store.complete(key, 'token', request)
    expect(await readDatabase()).toBe('1f0c93ab')
  })

  test('leaves a record of another database as it is, whatever its form', async () => {
    const { redis } = await emptyRedisSpace()
    const store = createRedisStore(redis, { ...OPTIONS, database: '11111111' })
    const text = '{"version":9,"database":"22222222"}'
    await redis.set(KEY, text)
    await expect(store.claim(key, 'v1:a', 'token')).rejects.toThrow(ForeignRecordError)
    expect(await redis.get(KEY)).toBe(text)
  })

  test('keeps a response that a person can read, for its time to live, which a replay does not change', async () => {
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

  test('claims the keys of one turn in one call, and stores their responses in one more', async () => {
    const { redis } = await emptyRedisSpace()
    const store = createRedisStore(redis, OPTIONS)
    // Redis gets the scripts themselves with their first calls.
    await store.claim(key, 'v1:a', 'token')
    await store.complete(key, 'token', request)
    const sentCommands = spyOnCommands(redis)
    const keys = Array.from({ length: 100 }, (_, i) => `key-${i}`)
    const claims = await Promise.all(keys.map((one) => store.claim(one, 'v1:a', `token-${one}`)))
    expect(claims).toEqual(keys.map(() => ({ state: 'new' })))
    await Promise.all(keys.map((one) => store.complete(one, `token-${one}`, request)))
    expect(sentCommands()).toBe(2)
    for (const one of keys) {
      expect(await store.claim(one, 'v1:a', 'again')).toMatchObject({
        state: 'completed',
        response,
      })
    }
    expect(sentCommands()).toBe(2 + keys.length)
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
    const completions = await Promise.allSettled([
      store.complete(key, 'token', request),
      store.complete('key-002', 'token', request),
    ])
    expect(completions).toEqual([
      {
        status: 'rejected',
        reason: expect.objectContaining({ message: expect.stringContaining('WRONGTYPE') }),
      },
      { status: 'fulfilled', value: undefined },
    ])
    expect(await store.claim('key-002', 'v1:a', 'again')).toMatchObject({ state: 'completed' })
    expect(await redis.lrange(KEY, 0, -1)).toEqual(['a list'])
  })

  test('reports how long it will keep a response', async () => {
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
