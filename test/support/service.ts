/** Instances of the service in this process, on the stores of the test file. */
import type { AddressInfo } from 'node:net'
import { pino } from 'pino'
import { onTestFinished } from 'vitest'
import { buildApp, type Overrides } from '../../src/app.ts'
import { parseSettings } from '../../src/settings.ts'
import { checkDatabase } from '../../src/stores/check-database.ts'
import { emptyDatabase, emptyRedisSpace } from './stores.ts'

/** Enough for a test that is not about the limit. */
const NO_LIMIT = '1000000'

/** How an instance differs from one with default settings. */
export interface Variation extends Pick<Overrides, 'wrapOrders' | 'wrapIdempotencyStore'> {
  env?: Record<string, string>
}

export interface TestStores {
  database: { url: string }
  redisSpace?: { url: string } | undefined
}

/** Empties the test file's stores: a database and, unless `redis` is false, a Redis key space. */
export async function createTestStores({ redis = true } = {}) {
  return {
    database: await emptyDatabase(),
    redisSpace: redis ? await emptyRedisSpace() : undefined,
  }
}

/** Starts an instance of the service on the given stores, listening on a free port. */
export async function startInstance(
  { database, redisSpace }: TestStores,
  { env, ...overrides }: Variation = {},
) {
  const databaseUrl = database.url
  const redisUrl = redisSpace?.url
  const settings = parseSettings({
    RATE_LIMIT_MAX: NO_LIMIT,
    DATABASE_URL: databaseUrl,
    REDIS_URL: redisUrl,
    ...(redisUrl === undefined && { IDEMPOTENCY_STORE: 'memory' }),
    ...env,
  })
  const logLines: Record<string, unknown>[] = []
  const logger = pino(
    { level: settings.logLevel, base: null },
    { write: (line) => void logLines.push(JSON.parse(line)) },
  )
  const databaseId = await checkDatabase(databaseUrl)
  const stores = { databaseUrl, databaseId, redisUrl, isEmbedded: false }
  const app = await buildApp(settings, logger, { stores, ...overrides })
  await app.listen({ host: '127.0.0.1', port: 0 })
  onTestFinished(() => app.close())
  const { port } = app.server.address() as AddressInfo
  const waiting = async () => {
    const metric = await app.metrics.registry
      .getSingleMetric('order_once_waiting_duplicates')
      ?.get()
    return metric?.values[0]?.value ?? 0
  }
  return { app, port, logLines, waiting, databaseId }
}

/** Starts an instance on the test file's stores, emptied; with Redis only if `redis` is true. */
export async function startService({
  redis = false,
  ...variation
}: Variation & { redis?: boolean } = {}) {
  const stores = await createTestStores({ redis })
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
