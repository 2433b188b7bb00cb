import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createMemoryCounters, fallBackToMemory } from '../../src/rate-limit/counters.ts'

const WINDOW_MS = 60_000

let now: number

beforeEach(() => {
  now = 1_000
  vi.spyOn(performance, 'now').mockImplementation(() => now)
  vi.useFakeTimers({ toFake: ['setTimeout'] }) // the cache reads the clock once in a millisecond
})
afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

function advance(ms: number): void {
  now += ms
  vi.advanceTimersByTime(ms)
}

describe('the counter in memory', () => {
  test('counts each client in a window of its own, which begins with its first request', () => {
    const count = createMemoryCounters(WINDOW_MS)
    expect(count('a')).toEqual({ count: 1, ttlMs: WINDOW_MS })
    advance(10_000)
    expect(count('b')).toEqual({ count: 1, ttlMs: WINDOW_MS })
    expect(count('a')).toEqual({ count: 2, ttlMs: WINDOW_MS - 10_000 })
  })

  test('has never longer than its window, although the clock goes on during a count', () => {
    vi.spyOn(performance, 'now').mockImplementation(() => (now += 0.01))
    const count = createMemoryCounters(WINDOW_MS)
    for (const client of ['a', 'b', 'a', 'c']) {
      expect(count(client).ttlMs).toBeLessThanOrEqual(WINDOW_MS)
    }
  })

  test('begins a new window when the last one has ended', () => {
    const count = createMemoryCounters(WINDOW_MS)
    count('a')
    advance(WINDOW_MS - 1)
    expect(count('a')).toEqual({ count: 2, ttlMs: 1 })
    advance(2)
    expect(count('a')).toEqual({ count: 1, ttlMs: WINDOW_MS })
  })

  test('keeps the counts of the 10 000 clients that were used last', () => {
    const count = createMemoryCounters(WINDOW_MS)
    for (let i = 0; i < 10_001; i++) count(`client-${i}`)
    expect(count('client-1').count).toBe(2)
    expect(count('client-0').count).toBe(1)
  })
})

test('counts fall back to memory while the counter fails, and return to it afterwards', async () => {
  let isUp = true
  const count = fallBackToMemory(async () => {
    if (!isUp) throw new Error('Redis does not respond')
    return { count: 7, ttlMs: 1 }
  }, WINDOW_MS)
  expect(await count('a', 10)).toEqual({ count: 7, ttlMs: 1 })
  isUp = false
  expect(await count('a', 10)).toEqual({ count: 1, ttlMs: WINDOW_MS })
  expect(await count('a', 10)).toEqual({ count: 2, ttlMs: WINDOW_MS })
  isUp = true
  expect(await count('a', 10)).toEqual({ count: 7, ttlMs: 1 })
})
