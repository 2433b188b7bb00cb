/** Names the stores for the front page, without their addresses. */
import type { Settings } from '../settings.ts'
import { chooseIdempotencyStore } from '../stores/idempotency-store.ts'
import type { Stores } from '../stores/prepare.ts'

/** What is kept where, in a few words each, such as `Postgres`. */
export interface StoresInUse {
  orders: string
  /** claims and responses of keys */
  responses: string
  /** counters of the rate limit */
  limits: string
}

export function describeStores(settings: Settings, stores: Stores): StoresInUse {
  const hasRedis = stores.redisUrl !== undefined
  const names = { redis: 'Redis', postgres: 'Postgres', memory: 'memory of this process' }
  return {
    orders: stores.isEmbedded ? 'embedded Postgres' : 'Postgres',
    responses: names[chooseIdempotencyStore(settings, hasRedis)],
    limits: hasRedis ? names.redis : names.memory,
  }
}
