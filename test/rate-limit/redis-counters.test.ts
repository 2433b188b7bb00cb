import { ConcurrencyLimit, type RunCall } from '@order-once/idempotency/batching'
import { describe, expect, test } from 'vitest'
import { createRedisCounters } from '../../src/rate-limit/redis-counters.ts'
import { emptyRedisSpace, hasRedis } from '../support/stores.ts'

const WINDOW_MS = 60_000

async function createCounters(runCall: RunCall = (call) => call()) {
  const { redis } = await emptyRedisSpace()
  const limit = new ConcurrencyLimit(1)
  return createRedisCounters(redis, { windowMs: WINDOW_MS, limit, runCall })
}

describe.runIf(hasRedis)('the counters in Redis', () => {
  test('count each of many requests at the same time', async () => {
    const increment = await createCounters()
    const windows = await Promise.all(Array.from({ length: 1_500 }, () => increment('a', 10_000)))
    expect(new Set(windows.map(({ count }) => count)).size).toBe(1_500)
  })

  test('call Redis again for a client whose limit becomes higher within its window', async () => {
    const increment = await createCounters()
    const count = async (max: number) => (await increment('a', max)).count
    expect([await count(1), await count(1), await count(1), await count(1)]).toEqual([1, 2, 2, 2])
    expect([await count(3), await count(3), await count(3)]).toEqual([3, 4, 4])
    expect(await count(2)).toBe(4)
  })

  test('fail in bounded time, and at once beyond a bound, while Redis does not respond', async () => {
    const increment = await createCounters(() => new Promise(() => {}))
    const counts = Array.from({ length: 6_000 }, () => increment('a', 10_000))
    const reasons = (await Promise.allSettled(counts)).map((result) =>
      result.status === 'rejected' ? result.reason.name : 'counted',
    )
    expect(reasons.slice(0, 5_000)).toEqual(Array(5_000).fill('DeadlineError'))
    expect(reasons.slice(5_000)).toEqual(Array(1_000).fill('QueueFullError'))
  })
})
