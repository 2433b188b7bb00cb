import { describe, expect, test } from 'vitest'
import { retryAfterMs } from '../../src/client/retry-after.ts'

const NOW = Date.UTC(1994, 10, 6, 8, 49, 7)

describe('Retry-After', () => {
  test('may be a number of seconds', () => {
    expect(retryAfterMs('0', NOW)).toBe(0)
    expect(retryAfterMs(' 120 ', NOW)).toBe(120_000)
  })

  test.each([
    'Sun, 06 Nov 1994 08:49:37 GMT',
    'Sunday, 06-Nov-94 08:49:37 GMT',
    'Sun Nov  6 08:49:37 1994',
  ])('may be a date in any form of HTTP: %s', (date) => {
    expect(retryAfterMs(date, NOW)).toBe(30_000)
    expect(retryAfterMs(date, NOW + 0.25)).toBe(30_000)
  })

  test('that has passed asks for no wait', () => {
    expect(retryAfterMs('Sun, 06 Nov 1994 08:49:00 GMT', NOW)).toBe(0)
  })

  test.each([null, '', 'soon', '-1', '1.5', '1e3', 'Sunday', '2026-01-01'])(
    'that is absent or malformed says nothing: %s',
    (header) => {
      expect(retryAfterMs(header, NOW)).toBeUndefined()
    },
  )
})
