import cluster, { type Worker } from 'node:cluster'
import closeWithGrace from 'close-with-grace'
import { type Logger, pino } from 'pino'
import { buildApp } from './app.ts'
import { createStoreCheck } from './check-stores.ts'
import { cleanUp, scheduleCleanUp } from './clean-up.ts'
import { serveMetrics } from './http/metrics-server.ts'
import { reportToPrimary, sumOverProcesses } from './metrics/cluster-metrics.ts'
import { createMetrics, type MakeReader, type Metrics } from './metrics/metrics.ts'
import { addProcessMetrics } from './metrics/process-metrics.ts'
import { addStoreMetrics } from './metrics/store-metrics.ts'
import { createOrdersRepository } from './orders/orders-repository.ts'
import type { CountHit } from './rate-limit/hits.ts'
import { createMemoryHits } from './rate-limit/memory-hits.ts'
import { countHitsFor, createPrimaryHits } from './rate-limit/primary-hits.ts'
import { createRedisHits } from './rate-limit/redis-hits.ts'
import { readSettings, type Settings } from './settings.ts'
import { StartError } from './start-error.ts'
import { createIdempotencyStore } from './storage/idempotency-store.ts'
import { type Connections, connectStores, prepareStores, type StoreUrls } from './storage/stores.ts'
import { describeStores } from './storage/stores-in-use.ts'
import type { Tracing } from './tracing/tracing.ts'
import { failToStart, onCloseRequest, startWorkers, urlsOfPrimary } from './workers.ts'

/** Requests at work have this long to finish before the process ends without them. */
const CLOSE_DELAY_MS = 10_000

/** Closes what was started. */
type Close = () => Promise<void>

try {
  const settings = readSettings()
  const logger = await createLogger(settings)
  // The processes of one service close together, and their primary says so for all of them.
  const level = cluster.isWorker ? 'debug' : 'info'
  const starting = cluster.isWorker ? startWorker(settings, logger) : startService(settings, logger)
  const grace = closeWithGrace({ delay: CLOSE_DELAY_MS, logger }, async ({ signal, err }) => {
    if (err) logger.fatal({ err }, 'closing after an unexpected error')
    else logger[level](`closing on ${signal ?? 'request'}: finishing the requests at work`)
    const close = await starting
    await close()
    logger[level]('closed')
  })
  if (cluster.isWorker) onCloseRequest(grace.close)
  await starting
} catch (error) {
  if (!(error instanceof StartError)) throw error
  if (cluster.isWorker) failToStart(error.message)
  else {
    process.stderr.write(`order-once cannot start: ${error.message}\n`)
    process.exit(1)
  }
}

/**
 * Prepares the stores and serves requests, in this process or in several more.
 *
 * @throws {StartError} after closing what was open already
 */
async function startService(settings: Settings, logger: Logger): Promise<Close> {
  const stores = await prepareStores(settings, logger)
  const hits = createMemoryHits(settings.rateLimit)
  const forWorker = (worker: Worker) => countHitsFor(worker, hits)
  const metrics = startMetrics(settings.workers === 1 ? undefined : sumOverProcesses)
  let closeMetrics: Close = async () => {}
  try {
    closeMetrics = await listenForMetrics(metrics, settings, logger)
    const close =
      settings.workers === 1
        ? await serve(settings, stores, metrics, logger)
        : await startWorkers(settings.workers, stores, logger, forWorker)
    if (!settings.production) logger.info(firstSteps(settings))
    const stopCleaning = scheduleCleanUp(
      (signal) => cleanUp(stores.databaseUrl, settings, signal),
      logger,
    )
    return async () => {
      await close()
      await stopCleaning()
      await closeMetrics()
      await stores.close()
    }
  } catch (error) {
    await closeMetrics()
    await stores.close()
    throw error
  }
}

/** One process of several: its primary has prepared the stores, and told where they are. */
async function startWorker(settings: Settings, logger: Logger): Promise<Close> {
  return serve(settings, urlsOfPrimary(settings), startMetrics(reportToPrimary), logger)
}

function startMetrics(makeReader?: MakeReader): Metrics {
  const metrics = createMetrics(makeReader)
  addProcessMetrics(metrics.registry)
  return metrics
}

/**
 * Serves the metrics on the port that is set for them, if one is.
 *
 * @throws {StartError} if it cannot be listened on
 */
async function listenForMetrics(
  metrics: Metrics,
  { host, metricsPort: port }: Settings,
  logger: Logger,
): Promise<Close> {
  if (port === undefined) return async () => {}
  return serveMetrics(metrics, { host, port }, logger).catch((error) => {
    throw new StartError(listenFailure(error, host, 'METRICS_PORT', port))
  })
}

/**
 * Connects to the stores, builds the app and listens.
 *
 * @returns what closes it all again: first the app, which finishes its requests, then the stores
 * @throws {StartError} after closing what was open already
 */
async function serve(
  settings: Settings,
  urls: StoreUrls,
  metrics: Metrics,
  logger: Logger,
): Promise<Close> {
  const stores = await connectStores(urls, logger)
  try {
    const orders = createOrdersRepository(stores.postgres, {
      maxBatch: settings.maxInsertBatch,
      onBatch: metrics.batchSent,
      onRowMismatch: metrics.rowMismatched,
    })
    const checkStores = createStoreCheck(stores)
    addStoreMetrics(metrics.registry, { ...stores, orders, checkStores })
    const resources = {
      settings,
      logger,
      orders,
      idempotencyStore: createIdempotencyStore(settings, stores, logger),
      countHit: countHitIn(stores, settings),
      storesInUse: describeStores(settings, urls),
      checkStores,
      metrics,
    }
    const tracing = await startTracing(settings, logger)
    const app = await buildApp(tracing?.trace(resources) ?? resources)
    await app
      .listen({
        host: settings.host,
        port: settings.port,
        listenTextResolver: (address) =>
          cluster.isWorker ? `ready at ${address}` : `order-once listens on ${address}`,
      })
      .catch((error) => {
        throw new StartError(listenFailure(error, settings.host, 'PORT', settings.port))
      })
    return async () => {
      await app.close()
      await stores.close()
      await tracing?.close() // at last: what is still written to the stores is traced, too
    }
  } catch (error) {
    await stores.close()
    throw error
  }
}

/** What a newcomer types next. */
function firstSteps({ port, docs }: Settings): string {
  const url = port === 8080 ? '' : ` --url http://127.0.0.1:${port}`
  const command = `npm run order -- --item tea --amount 3${url}`
  return `to try it, ${docs ? 'open it in a browser, or ' : ''}in another terminal: ${command}`
}

/** Loads OpenTelemetry only where traces are wanted. */
async function startTracing({ traces }: Settings, logger: Logger): Promise<Tracing | undefined> {
  if (!traces) return undefined
  const { startTracing } = await import('./tracing/tracing.ts')
  return startTracing(traces, logger)
}

/** Where the rate limit is counted: in Redis, else in the primary of several processes, else alone. */
function countHitIn({ redis }: Connections, { rateLimit }: Settings): CountHit | undefined {
  if (redis)
    return createRedisHits(redis.client, { ...rateLimit, ask: redis.ask, lane: redis.lane })
  return cluster.isWorker ? createPrimaryHits() : undefined
}

/** JSON lines; on a terminal, lines for a person. */
async function createLogger(settings: Settings): Promise<Logger> {
  const options = {
    level: settings.logLevel,
    base: cluster.isWorker ? { pid: process.pid } : null,
    serializers: { err: describeError },
  }
  if (!process.stdout.isTTY) return pino(options)
  const { default: pretty } = await import('pino-pretty')
  return pino(options, pretty({ translateTime: 'HH:MM:ss', sync: true }))
}

/** Leaves out what drivers attach to their errors: it quotes rows and parameters. */
function describeError(error: Error & { code?: string }) {
  const { name, message, code, stack } = error
  return { type: name, message, code, stack }
}

/** @param name of the setting that names the port */
function listenFailure(
  error: NodeJS.ErrnoException,
  host: string,
  name: string,
  port: number,
): string {
  switch (error.code) {
    case 'EADDRINUSE':
      return `port ${port} on ${host} is in use: stop what runs there, or set ${name} to another`
    case 'EACCES':
      return `port ${port} on ${host} may not be used by this user: set ${name} to 1024 or more`
    default:
      return `HOST ${host} and ${name} ${port} cannot be listened on: ${error.message}`
  }
}
