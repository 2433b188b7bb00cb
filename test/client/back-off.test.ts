import { describe, expect, test } from 'vitest'
import { backOffMs } from '../../src/client/back-off.ts'

const almostOne = () => 1 - Number.EPSILON
const longest = (failures: number) => backOffMs(failures, almostOne)

describe('the wait after a failure', () => {
  test('is at most twice as long after each further one, up to 10 s', () => {
    expect([1, 2, 3, 4, 5, 6, 7, 8, 100].map(longest)).toEqual([
      200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000,
    ])
    expect(longest(5000)).toBe(10_000)
  })

  test('is anywhere between nothing and that', () => {
    expect(backOffMs(3, () => 0)).toBe(0)
    expect(backOffMs(3, () => 0.25)).toBe(200)
    expect(backOffMs(3, () => 0.5)).toBe(400)
  })

  test('is another each time', () => {
    expect(new Set(Array.from({ length: 20 }, () => backOffMs(10))).size).toBeGreaterThan(1)
  })
})
