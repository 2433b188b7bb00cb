import type { Logger } from 'pino'
import type { Settings } from '../settings.ts'
import { locateStores } from './locate-stores.ts'
import { migrateDatabase } from './migrate.ts'
import { openPostgres, type PostgresPool, placeOf, untilPostgresAnswers } from './postgres.ts'
import { openRedis, type RedisConnection } from './redis.ts'

/** Where the stores of a service are. */
export interface StoreUrls {
  databaseUrl: string
  /** undefined: there is no Redis */
  redisUrl: string | undefined
  /** whether the database is the embedded one */
  isEmbedded: boolean
}

/** The stores of a service, found and ready for its processes to connect to. */
export interface Stores extends StoreUrls {
  /** Stops the embedded database, if it runs. */
  close(): Promise<void>
}

/** One process's connections to the stores. */
export interface Connections {
  postgres: PostgresPool
  /** undefined: there is none */
  redis: RedisConnection | undefined
  close(): Promise<void>
}

/**
 * Finds the stores that the settings name; in development without any, those of
 * `docker-compose.yml` if they answer, else the embedded ones, which it starts. The database is
 * brought to the newest schema.
 *
 * @throws {StartError} if a store that is needed does not answer
 */
export async function prepareStores(settings: Settings, log: Logger): Promise<Stores> {
  const { databaseUrl, redisUrl, reason } = await locateStores(settings)
  let url = databaseUrl
  let close = async () => {}
  try {
    if (url === undefined) {
      // Loaded only where it is used: production installs need not have it.
      const { startEmbeddedPostgres } = await import('./embedded-postgres.ts')
      const embedded = await startEmbeddedPostgres(settings.dataDir, () => {
        // Uncaught, it ends the process in good order; whoever started the service starts it anew.
        throw new Error('the embedded Postgres has ended')
      })
      close = () => embedded.stop()
      url = embedded.url
      log.info(`orders are kept in an embedded Postgres in ${embedded.directory} (${reason})`)
    } else {
      await untilPostgresAnswers(url)
      log.info(`orders are kept in Postgres at ${placeOf(url)} (${reason})`)
    }
    await migrateDatabase(url)
  } catch (error) {
    await close()
    throw error
  }
  const place = redisUrl ? `Redis at ${placeOf(redisUrl)}` : 'the memory of this process'
  log.info(`rate-limit counters are kept in ${place} (${reason})`)
  return { databaseUrl: url, redisUrl, isEmbedded: databaseUrl === undefined, close }
}

/** Connects to the stores; to Postgres on demand, to Redis as soon as it answers. */
export async function connectStores(urls: StoreUrls, log: Logger): Promise<Connections> {
  const postgres = openPostgres(urls.databaseUrl, log)
  const redis = urls.redisUrl === undefined ? undefined : await openRedis(urls.redisUrl, log)
  return {
    postgres,
    redis,
    close: async () => {
      await redis?.close()
      await postgres.close()
    },
  }
}
