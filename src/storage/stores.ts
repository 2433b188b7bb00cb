import type { Logger } from 'pino'
import type { Settings } from '../settings.ts'
import { locateStores } from './locate-stores.ts'
import { migrateDatabase } from './migrate.ts'
import { openPostgres, type PostgresPool, placeOf, untilPostgresAnswers } from './postgres.ts'
import { openRedis, type RedisConnection } from './redis.ts'

/** The open stores of a running service. */
export interface Stores {
  databaseUrl: string
  postgres: PostgresPool
  /** undefined: there is none */
  redis: RedisConnection | undefined
  /** Closes the connections and stops the embedded database, if it runs. */
  close(): Promise<void>
}

/**
 * Opens the stores that the settings name; in development without any, those of
 * `docker-compose.yml` if they answer, else the embedded ones. The database is brought to the
 * newest schema.
 *
 * @throws {StartError} if a store that is needed does not answer
 */
export async function openStores(settings: Settings, log: Logger): Promise<Stores> {
  const { databaseUrl, redisUrl, reason } = await locateStores(settings)
  const closers: (() => Promise<unknown>)[] = []
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer()
  }
  try {
    let url = databaseUrl
    if (url === undefined) {
      // Loaded only where it is used: production installs need not have it.
      const { startEmbeddedPostgres } = await import('./embedded-postgres.ts')
      const embedded = await startEmbeddedPostgres(settings.dataDir, () => {
        // Uncaught, it ends the process in good order; whoever started the service starts it anew.
        throw new Error('the embedded Postgres has ended')
      })
      closers.push(() => embedded.stop())
      url = embedded.url
      log.info(`orders are kept in an embedded Postgres in ${embedded.directory} (${reason})`)
    } else {
      await untilPostgresAnswers(url)
      log.info(`orders are kept in Postgres at ${placeOf(url)} (${reason})`)
    }
    await migrateDatabase(url)
    const pool = openPostgres(url, log)
    closers.push(() => pool.close())

    let redis: RedisConnection | undefined
    if (redisUrl === undefined) {
      log.info(`rate-limit counters are kept in the memory of this process (${reason})`)
    } else {
      redis = await openRedis(redisUrl, log)
      closers.push(redis.close)
      log.info(`rate-limit counters are kept in Redis at ${placeOf(redisUrl)} (${reason})`)
    }
    return { databaseUrl: url, postgres: pool, redis, close }
  } catch (error) {
    await close()
    throw error
  }
}
