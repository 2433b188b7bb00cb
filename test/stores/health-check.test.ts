import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createStoreCheck } from '../../src/stores/health-check.ts'
import type { PostgresPool } from '../../src/stores/postgres-pool.ts'

let now: number

beforeEach(() => {
  now = 10_000
  vi.spyOn(performance, 'now').mockImplementation(() => now)
})
afterEach(() => {
  vi.restoreAllMocks()
})

/** A check on a pool that counts its queries. @param wroteAt when a write last succeeded */
function createCheck({ wroteAt = 0, isUp = true, hasFailedToWrite = false } = {}) {
  let queries = 0
  const postgres: PostgresPool = {
    query: async () => {
      queries++
      if (!isUp) throw new Error('Postgres does not respond')
      return []
    },
    load: () => ({ pending: 0, limit: 1, wroteAt, hasFailedToWrite }),
    close: async () => {},
  }
  return { check: createStoreCheck({ postgres, redis: undefined }), queries: () => queries }
}

const UP = { postgres: 'up', redis: 'none' }

describe('the check of the stores', () => {
  test('runs once for any number of calls at the same time', async () => {
    const { check, queries } = createCheck()
    expect(await Promise.all(Array.from({ length: 50 }, check))).toEqual(Array(50).fill(UP))
    expect(queries()).toBe(1)
  })

  test('runs again when its result is a second old', async () => {
    const { check, queries } = createCheck()
    await check()
    now += 999
    await check()
    expect(queries()).toBe(1)
    now += 1
    await check()
    expect(queries()).toBe(2)
  })

  test('runs no query when an order was written within the last second', async () => {
    const { check, queries } = createCheck({ wroteAt: now - 999 })
    expect(await check()).toEqual(UP)
    expect(queries()).toBe(0)
  })

  test('runs a query after a write that failed, however lately one succeeded', async () => {
    const { check, queries } = createCheck({ wroteAt: now, hasFailedToWrite: true })
    await check()
    expect(queries()).toBe(1)
  })

  test('returns "down" where a store fails', async () => {
    const { check } = createCheck({ isUp: false })
    expect(await check()).toEqual({ postgres: 'down', redis: 'none' })
  })
})
