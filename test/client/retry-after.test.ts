import { describe, expect, test } from 'vitest'
import { parseRetryAfter } from '../../src/client/retry-after.ts'

const NOW = Date.UTC(1994, 10, 6, 8, 49, 7)

describe('Retry-After', () => {
  test('can be a number of seconds', () => {
    expect(parseRetryAfter('0', NOW)).toBe(0)
    expect(parseRetryAfter(' 120 ', NOW)).toBe(120_000)
  })

  test.each([
    'Sun, 06 Nov 1994 08:49:37 GMT',
    'Sunday, 06-Nov-94 08:49:37 GMT',
    'Sun Nov  6 08:49:37 1994',
  ])('can be a date in each HTTP format: %s', (date) => {
    expect(parseRetryAfter(date, NOW)).toBe(30_000)
    expect(parseRetryAfter(date, NOW + 0.25)).toBe(30_000)
  })

  test('with a date in the past means no wait', () => {
    expect(parseRetryAfter('Sun, 06 Nov 1994 08:49:00 GMT', NOW)).toBe(0)
  })

  test.each([null, '', 'soon', '-1', '1.5', '1e3', 'Sunday', '2026-01-01'])(
    'is ignored if it is absent or malformed: %s',
    (header) => {
      expect(parseRetryAfter(header, NOW)).toBeUndefined()
    },
  )
})
