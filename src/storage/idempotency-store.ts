import type { Logger } from 'pino'
import { cacheAnswers } from '../idempotency/cached-store.ts'
import { createMemoryStore } from '../idempotency/memory-store.ts'
import { createPostgresStore } from '../idempotency/postgres-store.ts'
import { createRedisStore } from '../idempotency/redis-store.ts'
import type { IdempotencyStore } from '../idempotency/store.ts'
import type { Settings } from '../settings.ts'
import { StartError } from '../start-error.ts'
import type { Connections } from './stores.ts'

/**
 * Where idempotency records are kept: in the store that the settings name; by default in Redis if
 * there is one, else in a given Postgres, which other processes may share, else in memory.
 */
export function idempotencyStoreKind(
  { idempotency, databaseUrl, workers }: Settings,
  hasRedis: boolean,
) {
  const isShared = databaseUrl !== undefined || workers > 1
  const byDefault = isShared ? 'postgres' : 'memory'
  return idempotency.store ?? (hasRedis ? 'redis' : byDefault)
}

/**
 * Opens the store of idempotency records.
 *
 * @throws {StartError} if Redis is named and there is none
 */
export function createIdempotencyStore(
  settings: Settings,
  { redis, postgres }: Connections,
  log: Logger,
): IdempotencyStore {
  const options = {
    ...settings.idempotency,
    report: (_key: string, error: Error) =>
      log.warn({ err: error }, 'an idempotency record could not be read and was dropped'),
  }
  switch (idempotencyStoreKind(settings, redis !== undefined)) {
    case 'redis':
      if (!redis) throw new StartError('IDEMPOTENCY_STORE is redis, but there is no REDIS_URL')
      log.info('idempotency records are kept in Redis')
      return cacheAnswers(
        createRedisStore(redis.client, { ...options, ask: redis.ask, lane: redis.lane }),
      )
    case 'postgres':
      log.info('idempotency records are kept in Postgres')
      return cacheAnswers(
        createPostgresStore(
          { execute: (statement) => postgres.run((database) => database.execute(statement)) },
          options,
        ),
      )
    case 'memory':
      log.info('idempotency records are kept in the memory of this process')
      return createMemoryStore(options)
  }
}
