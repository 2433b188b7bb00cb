import { describe, expect, test } from 'vitest'
import { computeBackOffMs } from '../../src/client/back-off.ts'

const justBelowOne = () => 1 - Number.EPSILON
const computeLongest = (failures: number) => computeBackOffMs(failures, justBelowOne)

describe('the back-off', () => {
  test('has an upper limit that doubles with every failure, up to 10 s', () => {
    expect([1, 2, 3, 4, 5, 6, 7, 8, 100].map(computeLongest)).toEqual([
      200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000,
    ])
    expect(computeLongest(5000)).toBe(10_000)
  })

  test('is between 0 and the upper limit', () => {
    expect(computeBackOffMs(3, () => 0)).toBe(0)
    expect(computeBackOffMs(3, () => 0.25)).toBe(200)
    expect(computeBackOffMs(3, () => 0.5)).toBe(400)
  })

  test('is random', () => {
    expect(new Set(Array.from({ length: 20 }, () => computeBackOffMs(10))).size).toBeGreaterThan(1)
  })
})
