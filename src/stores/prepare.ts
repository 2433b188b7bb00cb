/** Finds the stores of the service, starts the embedded ones, and applies migrations. */
import type { FastifyBaseLogger } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import type { Settings } from '../settings.ts'
import { checkDatabase } from './check-database.ts'
import { checkRedis } from './check-redis.ts'
import { readKnownHistory } from './database-history.ts'
import { locateStores } from './locate.ts'
import { migrateDatabase } from './migrate.ts'
import { urlWithoutCredentials } from './postgres-connection.ts'
import { readLastPrimary, requireTimeline } from './postgres-primary.ts'
import { waitForPostgres } from './postgres-session.ts'
import { connectToRedis } from './redis-session.ts'
import { describeRedis } from './redis-url.ts'

declare module 'fastify' {
  interface FastifyInstance {
    stores: Stores
  }
}

/** Where the stores are, ready for connections. */
export interface Stores {
  databaseUrl: string
  /** which database the records in a shared Redis belong to */
  databaseId: string
  /** undefined: there is no Redis */
  redisUrl: string | undefined
  /** whether the database is the embedded one */
  isEmbedded: boolean
}

/**
 * Finds the stores that the settings name; in development without any, those of `docker-compose.yml` if
 * they respond, else starts the embedded ones. Applies pending migrations and checks the database.
 *
 * @param signal ends the wait for a Postgres that does not respond, or for another's migrations
 * @returns the stores, and a function that stops the embedded database if there is one
 * @throws {StartError} if a store that is needed does not respond
 */
export async function prepareStores(
  settings: Settings,
  log: FastifyBaseLogger,
  signal?: AbortSignal,
): Promise<{ stores: Stores; close: () => Promise<void> }> {
  const { databaseUrl, redisUrl, reason } = await locateStores(settings, log)
  let url = databaseUrl
  let close = async () => {}
  try {
    if (url === undefined) {
      // Loaded only where it is used: production installs need not have it.
      const { startEmbeddedPostgres } = await import('./embedded/postgres.ts')
      const embedded = await startEmbeddedPostgres(settings.dataDir, () => {
        // Thrown uncaught on purpose: close-with-grace shuts down, the supervisor restarts.
        throw new Error('the embedded Postgres has ended')
      })
      close = () => embedded.stop()
      url = embedded.url
      log.info(`orders are kept in an embedded Postgres in ${embedded.directory} (${reason})`)
    } else {
      await waitUnlessAborted(waitForPostgres(url, log), signal)
      log.info(`orders are kept in Postgres at ${urlWithoutCredentials(url)} (${reason})`)
    }
    await waitUnlessAborted(migrateDatabase(url, log), signal)
    const databaseId = await waitUnlessAborted(checkDatabase(url), signal)
    if (redisUrl !== undefined) {
      await waitUnlessAborted(checkRedis(redisUrl, log), signal)
      await waitUnlessAborted(waitForLastTimeline(url, databaseId, redisUrl, log), signal)
    }
    const place = redisUrl ? describeRedis(redisUrl) : 'the memory of this process'
    log.info(`rate-limit counters are kept in ${place} (${reason})`)
    const isEmbedded = databaseUrl === undefined
    return { stores: { databaseUrl: url, databaseId, redisUrl, isEmbedded }, close }
  } catch (error) {
    await close()
    throw error
  }
}

/**
 * With several hosts: if the primary is on an older timeline than the last one in Redis, waits for the newer one.
 * It was replaced, and lacks the orders of the newer one.
 *
 * @throws {StartError}
 */
async function waitForLastTimeline(
  url: string,
  databaseId: string,
  redisUrl: string,
  log: FastifyBaseLogger,
): Promise<void> {
  if (readLastPrimary(url) === undefined) return
  const known = await readHistory(redisUrl, databaseId).catch(() => undefined) // `checkRedis` warns
  if (!known) return
  const { system, timeline, newest = timeline } = known
  if (requireTimeline(url, system, Number.parseInt(newest, 16))) await waitForPostgres(url, log)
}

async function readHistory(redisUrl: string, databaseId: string) {
  const redis = await connectToRedis(redisUrl)
  try {
    return await readKnownHistory(redis, databaseId)
  } finally {
    redis.disconnect()
  }
}

/** Waits for work that cannot be ended: when the start is aborted, the process ends without it. */
async function waitUnlessAborted<T>(work: Promise<T>, signal?: AbortSignal): Promise<T> {
  const aborted = new Promise<never>((_, reject) => {
    const abort = () => reject(new Error('the start was aborted'))
    if (signal?.aborted) abort()
    signal?.addEventListener('abort', abort, { once: true })
  })
  return Promise.race([work, aborted])
}

interface StoresOptions {
  settings: Settings
  /** stores that another process has prepared; without them, this one does */
  prepared?: Stores | undefined
  /** ends the start */
  signal?: AbortSignal | undefined
}

/** Decorates the app with `stores`. */
export const stores = fastifyPlugin(
  async (app, { settings, prepared, signal }: StoresOptions) => {
    if (prepared) {
      app.decorate('stores', prepared)
      return
    }
    const { stores, close } = await prepareStores(settings, app.log, signal)
    app.decorate('stores', stores)
    app.addHook('onClose', close)
  },
  { name: 'stores' },
)
