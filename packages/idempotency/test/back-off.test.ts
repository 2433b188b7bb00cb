import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { BackOff } from '../src/back-off.ts'

/** Lets a call fail so often, on a clock that the test advances. */
function createCall(failures: number) {
  vi.useFakeTimers()
  onTestFinished(() => void vi.useRealTimers())
  const start = performance.now()
  const times: number[] = []
  const call = async () => {
    times.push(performance.now() - start)
    if (times.length <= failures) throw new Error('failed')
    return 'done'
  }
  return { call, times }
}

describe('a back-off', () => {
  test('repeats a call after 50 ms, 100 ms and so on, at most 1 s, until it does not fail', async () => {
    const { call, times } = createCall(6)
    const result = new BackOff().repeat(call, 60_000)
    await vi.advanceTimersByTimeAsync(60_000)
    expect(await result).toBe('done')
    expect(times).toEqual([50, 150, 350, 750, 1550, 2550, 3550])
  })

  test('ends when its time is over', async () => {
    const { call, times } = createCall(Number.POSITIVE_INFINITY)
    const result = new BackOff().repeat(call, 2_000)
    await vi.advanceTimersByTimeAsync(60_000)
    expect(await result).toBeUndefined()
    expect(times).toEqual([50, 150, 350, 750, 1550])
    expect(vi.getTimerCount()).toBe(0)
  })

  test('ends at once, with all its repetitions, and begins no more', async () => {
    const { call, times } = createCall(Number.POSITIVE_INFINITY)
    const backOff = new BackOff()
    const results = [backOff.repeat(call, 60_000), backOff.repeat(call, 60_000)]
    await vi.advanceTimersByTimeAsync(50)
    backOff.end()
    expect(await Promise.all(results)).toEqual([undefined, undefined])
    expect(await backOff.repeat(call, 60_000)).toBeUndefined()
    expect(times).toEqual([50, 50])
    expect(vi.getTimerCount()).toBe(0)
  })
})
