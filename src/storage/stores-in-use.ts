import type { StoresInUse } from '../http/front-page.ts'
import type { Settings } from '../settings.ts'
import { idempotencyStoreKind } from './idempotency-store.ts'
import type { StoreUrls } from './stores.ts'

/** Names the stores for whoever looks at the front page, without telling where they are. */
export function describeStores(settings: Settings, urls: StoreUrls): StoresInUse {
  const hasRedis = urls.redisUrl !== undefined
  const memory = settings.workers === 1 ? 'memory of this process' : 'memory of the primary process'
  const answers = {
    redis: 'Redis',
    postgres: 'Postgres',
    memory: 'memory of this process',
  }
  return {
    orders: urls.isEmbedded ? 'embedded Postgres' : 'Postgres',
    answers: answers[idempotencyStoreKind(settings, hasRedis)],
    limits: hasRedis ? 'Redis' : memory,
  }
}
