/** Where idempotency records are kept. */
import {
  createMemoryStore,
  createPostgresStore,
  createRedisStore,
  type IdempotencyStore,
} from '@order-once/idempotency'
import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { Counter, type Registry } from 'prom-client'
import type { Settings } from '../settings.ts'
import { StartError } from '../start-error.ts'
import { traceStore } from './trace-idempotency-store.ts'

declare module 'fastify' {
  interface FastifyInstance {
    idempotencyStore: IdempotencyStore
  }
}

/** Each request whose key has a foreign record reports it; one warning a minute is enough. */
const FOREIGN_RECORD_WARNING_INTERVAL_MS = 60_000

/**
 * Chooses the store: the one that the settings name; by default Redis if there is one, else a given
 * Postgres, which other instances may share, else memory.
 */
export function chooseIdempotencyStore(
  { idempotencyStore, databaseUrl }: Settings,
  hasRedis: boolean,
): 'redis' | 'postgres' | 'memory' {
  const byDefault = databaseUrl === undefined ? 'memory' : 'postgres'
  return idempotencyStore ?? (hasRedis ? 'redis' : byDefault)
}

/** @throws {StartError} if Redis is named and there is none */
function createIdempotencyStore(
  { redis, postgres, stores, metrics, log }: FastifyInstance,
  settings: Settings,
): IdempotencyStore {
  const options = {
    ttlMs: settings.responseTtlMs,
    leaseMs: settings.leaseMs,
    database: stores.databaseId,
    ...createRecordReports(metrics.registry, log),
  }
  switch (chooseIdempotencyStore(settings, redis !== undefined)) {
    case 'redis': {
      if (!redis) throw new StartError('IDEMPOTENCY_STORE is redis, but there is no REDIS_URL')
      log.info('idempotency records are kept in Redis')
      const { client, limit, runCall } = redis
      return createRedisStore(client, { ...options, limit, runCall })
    }
    case 'postgres':
      log.info('idempotency records are kept in Postgres')
      return createPostgresStore((text, values) => postgres.query(text, values), options)
    case 'memory':
      log.info('idempotency records are kept in the memory of this process')
      return createMemoryStore(options)
  }
}

/** Counts and logs the records that are not used. */
function createRecordReports(registry: Registry, log: FastifyBaseLogger) {
  const registers = [registry]
  const corruptRecords = new Counter({
    name: 'order_once_corrupt_records_total',
    help: 'Idempotency records that could not be read and were deleted',
    registers,
  })
  const foreignRecords = new Counter({
    name: 'order_once_foreign_records_total',
    help: 'Idempotency records of a service on another database, which were not used',
    registers,
  })
  let nextWarningAt = 0
  return {
    reportCorruptRecord: (_key: string, error: Error) => {
      corruptRecords.inc()
      log.warn({ err: error }, 'an idempotency record could not be read and was deleted')
    },
    reportForeignRecord: () => {
      foreignRecords.inc()
      const now = performance.now()
      if (now < nextWarningAt) return
      nextWarningAt = now + FOREIGN_RECORD_WARNING_INTERVAL_MS
      log.warn(
        'an idempotency record belongs to another database; such requests go on without a claim. Give each service a Redis database of its own',
      )
    },
  }
}

/** Decorates the app with `idempotencyStore`. */
export const idempotencyStore = fastifyPlugin(
  async (
    app,
    options: { settings: Settings; wrap?: (store: IdempotencyStore) => IdempotencyStore },
  ) => {
    const { settings, wrap = (store) => store } = options
    const store = wrap(createIdempotencyStore(app, settings))
    app.decorate('idempotencyStore', app.tracer ? traceStore(store, app.tracer) : store)
  },
  { name: 'idempotency-store', dependencies: ['stores', 'postgres', 'redis', 'metrics'] },
)
