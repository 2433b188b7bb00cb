import { Redis } from 'ioredis'
import type { Settings } from '../settings.ts'
import { StartError } from '../start-error.ts'
import { placeOf, untilPostgresAnswers } from './postgres.ts'

/** The services of `docker-compose.yml`. */
export const COMPOSE = {
  databaseUrl: 'postgres://order_once:order_once@localhost:5433/order_once',
  redisUrl: 'redis://localhost:6380',
}

/** A Redis on this machine that answers at all does so within this time. */
const REDIS_TIMEOUT_MS = 500

/** Where the stores are, and why there; without a URL, embedded in the service. */
export interface StoreLocations {
  databaseUrl: string | undefined
  redisUrl: string | undefined
  reason: string
}

/**
 * Decides which stores to use: those that the settings name; without any, the services of
 * `docker-compose.yml` if both answer; else the embedded ones.
 *
 * @throws {StartError} if only one of the two services answers
 */
export async function locateStores(
  { databaseUrl, redisUrl, embeddedOnly }: Settings,
  compose = COMPOSE,
): Promise<StoreLocations> {
  if (databaseUrl && redisUrl) {
    return { databaseUrl, redisUrl, reason: 'as DATABASE_URL and REDIS_URL say' }
  }
  if (databaseUrl) return { databaseUrl, redisUrl, reason: 'DATABASE_URL is set, REDIS_URL is not' }
  if (redisUrl) return { databaseUrl, redisUrl, reason: 'REDIS_URL is set, DATABASE_URL is not' }
  const embedded = { databaseUrl: undefined, redisUrl: undefined }
  if (embeddedOnly) return { ...embedded, reason: 'as STORES says' }

  const [postgres, redis] = await Promise.all([
    postgresAnswers(compose.databaseUrl),
    redisAnswers(compose.redisUrl),
  ])
  if (postgres && redis) {
    return { ...compose, reason: 'the services of docker-compose.yml answer' }
  }
  if (!postgres && !redis) {
    return {
      ...embedded,
      reason: 'neither DATABASE_URL nor REDIS_URL is set, and docker-compose.yml is not up',
    }
  }
  const postgresPlace = `Postgres at ${placeOf(compose.databaseUrl)}`
  const redisPlace = `Redis at ${placeOf(compose.redisUrl)}`
  const [present, missing] = postgres ? [postgresPlace, redisPlace] : [redisPlace, postgresPlace]
  throw new StartError(
    `of the services of docker-compose.yml, ${present} answers but ${missing} does not: start both with \`docker compose up --wait\`, stop both, or set DATABASE_URL and REDIS_URL`,
  )
}

async function postgresAnswers(url: string): Promise<boolean> {
  try {
    await untilPostgresAnswers(url, { started: true })
    return true
  } catch {
    return false
  }
}

async function redisAnswers(url: string): Promise<boolean> {
  const redis = new Redis(url, {
    lazyConnect: true,
    connectTimeout: REDIS_TIMEOUT_MS,
    commandTimeout: REDIS_TIMEOUT_MS,
    retryStrategy: () => null,
  })
  redis.on('error', () => {})
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
