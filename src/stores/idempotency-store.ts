/** Where idempotency records are kept. */
import {
  createMemoryStore,
  createPostgresStore,
  createRedisStore,
  type IdempotencyStore,
} from '@order-once/idempotency'
import type { FastifyInstance } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import type { Settings } from '../settings.ts'
import { StartError } from '../start-error.ts'
import { traceStore } from './trace-idempotency-store.ts'

declare module 'fastify' {
  interface FastifyInstance {
    idempotencyStore: IdempotencyStore
  }
}

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
  { redis, postgres, log }: FastifyInstance,
  settings: Settings,
): IdempotencyStore {
  const options = {
    ttlMs: settings.responseTtlMs,
    leaseMs: settings.leaseMs,
    reportCorruptRecord: (_key: string, error: Error) =>
      log.warn({ err: error }, 'an idempotency record could not be read and was deleted'),
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
  { name: 'idempotency-store', dependencies: ['postgres', 'redis'] },
)
