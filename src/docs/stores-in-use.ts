/** Names the stores for the front page, without their addresses. */
import type { Settings } from '../settings.ts'
import { chooseIdempotencyStore } from '../stores/idempotency-store.ts'
import type { Stores } from '../stores/prepare.ts'
import type { StoresInUse } from './front-page.ts'

export function describeStores(settings: Settings, stores: Stores): StoresInUse {
  const hasRedis = stores.redisUrl !== undefined
  const names = { redis: 'Redis', postgres: 'Postgres', memory: 'memory of this process' }
  return {
    orders: stores.isEmbedded ? 'embedded Postgres' : 'Postgres',
    answers: names[chooseIdempotencyStore(settings, hasRedis)],
    limits: hasRedis ? names.redis : names.memory,
  }
}
