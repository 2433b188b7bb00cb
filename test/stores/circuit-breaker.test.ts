import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createCircuitBreaker } from '../../src/stores/circuit-breaker.ts'

beforeEach(() => {
  vi.useFakeTimers({
    toFake: ['setTimeout', 'clearTimeout', 'setImmediate', 'performance', 'Date'],
  })
})
afterEach(() => {
  vi.useRealTimers()
})

function create() {
  const errors: string[] = []
  const breaker = createCircuitBreaker((error) => {
    if (error) errors.push(error.message)
  })
  let calls = 0
  /** Makes a call that takes so long and then ends as told; returns how it ended. */
  async function call({ ms = 0, fails = false } = {}): Promise<string> {
    const result = breaker
      .run(async () => {
        calls++
        await new Promise((resolve) => setTimeout(resolve, ms))
        if (fails) throw new Error('lost')
        return 'done'
      })
      .catch((error: Error) => (error.name === 'CircuitOpenError' ? 'refused' : error.message))
    await vi.advanceTimersByTimeAsync(ms)
    await vi.advanceTimersByTimeAsync(0)
    return result
  }
  async function fail(times: number): Promise<void> {
    for (let i = 0; i < times; i++) expect(await call({ fails: true })).toBe('lost')
  }
  return { breaker, call, fail, errors, calls: () => calls }
}

describe('the circuit', () => {
  test('opens after five failures in a row, and not after four', async () => {
    const { breaker, call, fail, calls } = create()
    await fail(4)
    expect(await call()).toBe('done')
    await fail(4)
    expect(breaker.isOpen()).toBe(false)
    await fail(1)
    expect(breaker.isOpen()).toBe(true)
    expect(await call()).toBe('refused')
    expect(calls()).toBe(10)
  })

  test('lets one call through after a second, and closes if it succeeds', async () => {
    const { breaker, call, fail } = create()
    await fail(5)
    await vi.advanceTimersByTimeAsync(999)
    expect(await call()).toBe('refused')
    await vi.advanceTimersByTimeAsync(1)
    const trial = call({ ms: 50 })
    expect(await call()).toBe('refused')
    expect(await trial).toBe('done')
    expect(breaker.isOpen()).toBe(false)
    expect(await call()).toBe('done')
  })

  test('stays open for another second if that call fails', async () => {
    const { call, fail } = create()
    await fail(5)
    await vi.advanceTimersByTimeAsync(1_000)
    await fail(1)
    expect(await call()).toBe('refused')
    await vi.advanceTimersByTimeAsync(1_000)
    expect(await call()).toBe('done')
  })

  test('opens after five calls of more than 100 ms, whose results are used', async () => {
    const { breaker, call, errors } = create()
    for (let i = 0; i < 4; i++) expect(await call({ ms: 150 })).toBe('done')
    expect(await call({ ms: 99 })).toBe('done')
    for (let i = 0; i < 5; i++) expect(await call({ ms: 150 })).toBe('done')
    expect(breaker.isOpen()).toBe(true)
    expect(errors.at(-1)).toBe('the call took more than 100 ms')
  })

  test('is tried after a second, however the system time is changed', async () => {
    const { call, fail } = create()
    await fail(5)
    vi.setSystemTime(Date.now() - 3_600_000)
    await vi.advanceTimersByTimeAsync(1_000)
    expect(await call()).toBe('done')
  })
})
