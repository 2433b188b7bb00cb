import type { AddressInfo } from 'node:net'
import { pino } from 'pino'
import { onTestFinished } from 'vitest'
import { type AppResources, buildApp } from '../../src/app.ts'
import { createStoreCheck } from '../../src/check-stores.ts'
import type { StoresInUse } from '../../src/http/front-page.ts'
import type { IdempotencyStore } from '../../src/idempotency/store.ts'
import { createMetrics } from '../../src/metrics/metrics.ts'
import { addStoreMetrics } from '../../src/metrics/store-metrics.ts'
import {
  createOrdersRepository,
  type OrdersRepository,
} from '../../src/orders/orders-repository.ts'
import { createRedisHits } from '../../src/rate-limit/redis-hits.ts'
import { parseSettings } from '../../src/settings.ts'
import { createIdempotencyStore } from '../../src/storage/idempotency-store.ts'
import { openPostgres } from '../../src/storage/postgres.ts'
import { openRedis } from '../../src/storage/redis.ts'
import { emptiedDatabase, emptiedRedisSpace } from './stores.ts'

/** Enough for a test that is not about the limit. */
const NO_LIMIT = '1000000'

/** Whatever a test wants to be another than in the service itself. */
export interface Variation {
  env?: Record<string, string>
  /** wraps the repository, to fail or to wait in it */
  orders?: (orders: OrdersRepository) => OrdersRepository
  /** wraps the store of idempotency records */
  store?: (store: IdempotencyStore) => IdempotencyStore
  /** traces the requests */
  trace?: (resources: AppResources) => AppResources
  /** what the front page says of the stores */
  storesInUse?: StoresInUse
}

export interface TestStores {
  database: Awaited<ReturnType<typeof emptiedDatabase>>
  redisSpace: Awaited<ReturnType<typeof emptiedRedisSpace>> | undefined
}

/** The test file's stores, emptied: a database and, unless `redis` is false, a Redis key space. */
export async function createTestStores({ redis = true } = {}): Promise<TestStores> {
  return {
    database: await emptiedDatabase(),
    redisSpace: redis ? await emptiedRedisSpace() : undefined,
  }
}

/** Starts an instance of the service on the given stores, listening on a free port. */
export async function startInstance(stores: TestStores, variation: Variation = {}) {
  const settings = parseSettings({ RATE_LIMIT_MAX: NO_LIMIT, ...variation.env })
  const logLines: Record<string, unknown>[] = []
  const logger = pino(
    { level: settings.logLevel, base: null },
    { write: (line) => void logLines.push(JSON.parse(line)) },
  )
  const pool = openPostgres(stores.database.url, logger)
  const redis = stores.redisSpace && (await openRedis(stores.redisSpace.url, logger))
  const metrics = createMetrics()
  const orders = createOrdersRepository(pool, {
    maxBatch: settings.maxInsertBatch,
    onBatch: metrics.batchSent,
    onRowMismatch: metrics.rowMismatched,
  })
  const checkStores = createStoreCheck({ postgres: pool, redis })
  addStoreMetrics(metrics.registry, { postgres: pool, redis, orders, checkStores })
  const store = createIdempotencyStore(
    settings,
    { redis, postgres: pool, close: async () => {} },
    logger,
  )
  const resources = {
    settings,
    logger,
    ...(variation.storesInUse && { storesInUse: variation.storesInUse }),
    orders: variation.orders?.(orders) ?? orders,
    idempotencyStore: variation.store?.(store) ?? store,
    countHit:
      redis &&
      createRedisHits(redis.client, { ...settings.rateLimit, ask: redis.ask, lane: redis.lane }),
    checkStores,
    metrics,
  }
  const app = await buildApp(variation.trace?.(resources) ?? resources)
  await app.listen({ host: '127.0.0.1', port: 0 })
  onTestFinished(async () => {
    await app.close()
    await pool.close()
    await redis?.close()
  })
  const { port } = app.server.address() as AddressInfo
  return { app, port, logLines, waiting: () => app.waitingRoom.size }
}

/** One instance on the test file's stores, emptied; without Redis unless it is asked for. */
export async function startService(variation: Variation & { redis?: boolean } = {}) {
  const stores = await createTestStores({ redis: variation.redis ?? false })
  const instance = await startInstance(stores, variation)
  return {
    ...stores,
    ...instance,
    countOrders: async () => {
      const [row] = await stores.database.sql`select count(*)::int as count from orders`
      return row?.count as number
    },
  }
}
