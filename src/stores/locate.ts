/** Decides which stores to use. */
import type { FastifyBaseLogger } from 'fastify'
import type { Settings } from '../settings.ts'
import { StartError } from '../start-error.ts'
import { urlWithoutCredentials } from './postgres-connection.ts'
import { waitForPostgres } from './postgres-session.ts'
import { createRedisClient } from './redis-client.ts'
import { describeRedis } from './redis-url.ts'

/** The services of `docker-compose.yml`. */
export const COMPOSE = {
  databaseUrl: 'postgres://order_once:order_once@localhost:5433/order_once',
  redisUrl: 'redis://localhost:6380',
}

/** A Redis on this machine responds within this time, or not at all. */
const REDIS_TIMEOUT_MS = 500

/** Where the stores are, and why; a store without a URL is embedded in the service. */
interface StoreLocations {
  databaseUrl: string | undefined
  redisUrl: string | undefined
  reason: string
}

/**
 * Decides which stores to use: those that the settings name; without any, the services of
 * `docker-compose.yml` if both respond; else the embedded ones.
 *
 * @throws {StartError} if only one of the two services responds
 */
export async function locateStores(
  { databaseUrl, redisUrl, stores }: Settings,
  log: FastifyBaseLogger,
  compose = COMPOSE,
): Promise<StoreLocations> {
  if (databaseUrl && redisUrl) {
    return { databaseUrl, redisUrl, reason: 'DATABASE_URL and REDIS_URL are set' }
  }
  if (databaseUrl) return { databaseUrl, redisUrl, reason: 'DATABASE_URL is set, REDIS_URL is not' }
  if (redisUrl) return { databaseUrl, redisUrl, reason: 'REDIS_URL is set, DATABASE_URL is not' }
  const embedded = { databaseUrl: undefined, redisUrl: undefined }
  if (stores === 'embedded') return { ...embedded, reason: 'STORES is embedded' }

  const [postgres, redis] = await Promise.all([
    isPostgresUp(compose.databaseUrl, log),
    isRedisUp(compose.redisUrl),
  ])
  if (postgres && redis) {
    return { ...compose, reason: 'the services of docker-compose.yml respond' }
  }
  if (!postgres && !redis) {
    return {
      ...embedded,
      reason: 'neither DATABASE_URL nor REDIS_URL is set, and docker-compose.yml is not up',
    }
  }
  const postgresAt = `Postgres at ${urlWithoutCredentials(compose.databaseUrl)}`
  const redisAt = describeRedis(compose.redisUrl)
  const [present, missing] = postgres ? [postgresAt, redisAt] : [redisAt, postgresAt]
  throw new StartError(
    `of the services of docker-compose.yml, ${present} responds but ${missing} does not: start both with \`docker compose up --wait\`, stop both, or set DATABASE_URL and REDIS_URL`,
  )
}

async function isPostgresUp(url: string, log: FastifyBaseLogger): Promise<boolean> {
  try {
    await waitForPostgres(url, log, { mustListen: true })
    return true
  } catch {
    return false
  }
}

async function isRedisUp(url: string): Promise<boolean> {
  const redis = createRedisClient(url, {
    lazyConnect: true,
    connectTimeout: REDIS_TIMEOUT_MS,
    commandTimeout: REDIS_TIMEOUT_MS,
    retryStrategy: () => null,
  })
  try {
    await redis.connect()
    await redis.ping()
    return true
  } catch {
    return false
  } finally {
    redis.disconnect()
  }
}
