import type { Redis } from 'ioredis'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { redisServer } from '../../../test/support/private-redis.ts'
import { emptyRedisSpace, hasRedis } from '../../../test/support/stores.ts'
import { ConcurrencyLimit } from '../src/batcher.ts'
import { createScriptBatcher, type ScriptBatcherOptions } from '../src/script-batcher.ts'
import { createRedisStore } from '../src/stores/redis-store.ts'
import { startClusteredRedis } from './support/clustered-redis.ts'

/** Appends to the text of each key; the replies are the text and its length. */
const APPEND = `
local replies = {}
for i, key in ipairs(KEYS) do
  local length = redis.pcall('APPEND', key, ARGV[i])
  replies[2 * i - 1] = length
  replies[2 * i] = type(length) == 'number' and redis.call('GET', key) or 0
end
return replies`

function createAppender(
  redis: Redis,
  options: Partial<ScriptBatcherOptions<[string, string], string>> = {},
) {
  return createScriptBatcher<[string, string], string>(redis, {
    name: 'appendTexts',
    lua: APPEND,
    repliesPerKey: 2,
    maxKeys: 256,
    limit: new ConcurrencyLimit(1),
    runCall: (call) => call(),
    getKey: ([key]) => key,
    getArguments: ([, text]) => [text],
    parseReplies: ([length, text]) =>
      length instanceof Error ? Promise.reject(length) : `${length}:${text}`,
    ...options,
  })
}

/** @returns a function that returns how many keys each call of a script has had since */
function spyOnCalls(redis: Redis): () => number[] {
  const sendCommand = vi.spyOn(redis, 'sendCommand')
  onTestFinished(() => sendCommand.mockRestore())
  return () =>
    sendCommand.mock.calls
      .filter(([command]) => command.name.startsWith('eval'))
      .map(([command]) => Number(command.args[1]))
}

const keys = Array.from({ length: 300 }, (_, i) => `key-${i}`)

describe.runIf(hasRedis)('a script batcher', () => {
  test('sends the items of one turn in calls of at most maxKeys keys, and returns to each its own result', async () => {
    const { redis } = await emptyRedisSpace()
    const calls = spyOnCalls(redis)
    const append = createAppender(redis)
    const results = await Promise.all(keys.map((key) => append([key, key])))
    expect(results).toEqual(keys.map((key) => `${key.length}:${key}`))
    expect(calls()).toEqual([256, 44])
  })

  test('rejects the item of a key that fails alone, and resolves the others', async () => {
    const { redis } = await emptyRedisSpace()
    const append = createAppender(redis)
    await redis.lpush('b', 'a list')
    const results = await Promise.allSettled(['a', 'b', 'c'].map((key) => append([key, 'x'])))
    expect(results).toEqual([
      { status: 'fulfilled', value: '1:x' },
      { status: 'rejected', reason: expect.any(Error) },
      { status: 'fulfilled', value: '1:x' },
    ])
  })

  test('fails the call itself if all its keys fail, and if it is refused', async () => {
    const { redis } = await emptyRedisSpace()
    const failures: unknown[] = []
    const append = createAppender(redis, {
      runCall: (call) =>
        call().catch((error) => {
          failures.push(error)
          throw new Error('refused', { cause: error })
        }),
    })
    await redis.lpush('a', 'a list')
    await redis.lpush('b', 'a list')
    const results = await Promise.allSettled(['a', 'b'].map((key) => append([key, 'x'])))
    expect(results).toEqual(Array(2).fill({ status: 'rejected', reason: new Error('refused') }))
    expect(failures).toEqual([expect.objectContaining({ message: expect.any(String) })])
    expect(`${failures[0]}`).toContain('WRONGTYPE')
  })

  test.each([
    ['fewer', 'return { 1 }', 1],
    ['more', 'return { 1, 2, 3, 4, 5 }', 5],
  ])('rejects all items of a call that returns %s replies than keys', async (_name, lua, count) => {
    const { redis } = await emptyRedisSpace()
    const append = createAppender(redis, { name: 'countWrongly', lua })
    const results = await Promise.allSettled(['a', 'b'].map((key) => append([key, 'x'])))
    const reason = new Error(`countWrongly returned ${count} replies for 2 keys`)
    expect(results).toEqual(Array(2).fill({ status: 'rejected', reason }))
  })
})

describe.runIf(redisServer)('a script batcher on a cluster', () => {
  test('sends each key in a call of its own, once Redis has refused the keys of several slots', async () => {
    const redis = await startClusteredRedis()
    const calls = spyOnCalls(redis)
    const append = createAppender(redis)
    const results = await Promise.all(keys.map((key) => append([key, key])))
    expect(results).toEqual(keys.map((key) => `${key.length}:${key}`))
    // The driver repeats those that Redis does not have the script for.
    const [first, ...others] = calls()
    expect(first).toBe(256)
    expect(new Set(others)).toEqual(new Set([1]))

    const again = await Promise.all(keys.map((key) => append([key, key])))
    expect(again).toEqual(keys.map((key) => `${2 * key.length}:${key}${key}`))
    expect(calls().slice(1 + others.length)).toEqual(keys.map(() => 1))
  })

  test('claims, renews, completes and releases the keys of the store rightly, 300 at once', async () => {
    const redis = await startClusteredRedis()
    const store = createRedisStore(redis, { leaseMs: 30_000, ttlMs: 86_400_000 })
    const claimAll = (run: string) =>
      Promise.all(keys.map((key) => store.claim(key, `v1:${key}`, `${run}-${key}`)))
    const completed = keys.slice(0, 200)
    const released = keys.slice(200)
    const response = (body: string) => ({ statusCode: 201, headers: {}, body })

    expect(await claimAll('first')).toEqual(keys.map(() => ({ state: 'new' })))
    expect((await claimAll('second')).map(({ state }) => state)).toEqual(
      keys.map(() => 'in_flight'),
    )
    for (const key of keys) expect(await store.renew(key, `v1:${key}`, `first-${key}`)).toBe(true)
    await Promise.all([
      ...completed.map((key) =>
        store.complete(key, `first-${key}`, { fingerprint: `v1:${key}`, response: response(key) }),
      ),
      ...released.map((key) => store.release(key, `first-${key}`)),
    ])
    expect(await claimAll('third')).toEqual([
      ...completed.map((key) =>
        expect.objectContaining({ state: 'completed', response: response(key) }),
      ),
      ...released.map(() => ({ state: 'new' })),
    ])
  })
})
