import { MAX_WAIT_SECONDS } from '@order-once/idempotency'
import { expect, test } from 'vitest'
import * as limits from '../src/limits.ts'
import { parseSettings } from '../src/settings.ts'

test('the parts of a shutdown, one after the other, fit into its time limit', () => {
  const parts =
    limits.FINISH_TIMEOUT_MS +
    limits.CLEAN_UP_CLOSE_TIMEOUT_MS +
    limits.REDIS_CLOSE_TIMEOUT_MS +
    limits.POSTGRES_CLOSE_TIMEOUT_MS +
    limits.TRACES_FLUSH_TIMEOUT_MS
  expect(parts).toBeLessThan(limits.SHUTDOWN_TIMEOUT_MS)
})

test('a claim is renewed in time although one renewal fails', () => {
  const { leaseMs } = parseSettings({})
  // The second of the three renewals of a lease.
  expect((2 * leaseMs) / 3 + limits.REDIS_COMMAND_TIMEOUT_MS).toBeLessThan(leaseMs)
})

test('Postgres ends a statement before its query times out', () => {
  expect(limits.STATEMENT_TIMEOUT_MS).toBeLessThan(limits.QUERY_TIMEOUT_MS)
})

test('a connection is not closed as stalled while a duplicate on it waits', () => {
  const longestResponse = MAX_WAIT_SECONDS * 1000 + limits.FINISH_TIMEOUT_MS
  expect(limits.STALLED_CONNECTION_TIMEOUT_MS).toBeGreaterThan(longestResponse)
})

test('headers are waited for no longer than a whole request', () => {
  expect(limits.HEADERS_TIMEOUT_MS).toBeLessThanOrEqual(limits.REQUEST_TIMEOUT_MS)
})
