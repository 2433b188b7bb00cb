import { describe, expect, test } from 'vitest'
import { parseSettings } from '../../src/settings.ts'
import { chooseIdempotencyStore } from '../../src/stores/idempotency-store.ts'

const DATABASE_URL = 'postgres://db/orders'

describe('idempotency records are kept', () => {
  test.each([
    ['in Redis if there is one', { DATABASE_URL }, true, 'redis'],
    ['in a given Postgres without Redis', { DATABASE_URL }, false, 'postgres'],
    ['in memory with an embedded Postgres', {}, false, 'memory'],
    ['in Redis with an embedded Postgres', {}, true, 'redis'],
    ['where IDEMPOTENCY_STORE says', { DATABASE_URL, IDEMPOTENCY_STORE: 'memory' }, true, 'memory'],
    ['in Redis if IDEMPOTENCY_STORE says so', { IDEMPOTENCY_STORE: 'redis' }, false, 'redis'],
  ])('%s', (_name, env, hasRedis, kind) => {
    expect(chooseIdempotencyStore(parseSettings(env), hasRedis)).toBe(kind)
  })
})
