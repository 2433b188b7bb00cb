/** One process of the service: builds the app, listens, and closes it in the end. */
import cluster from 'node:cluster'
import closeWithGrace from 'close-with-grace'
import type { FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import { buildApp } from './app.ts'
import { scheduledCleanUp } from './clean-up.ts'
import { buildPrimary, onCloseRequest, reportStartFailure, storesOfPrimary } from './cluster.ts'
import { failoverWatch } from './failover-watch.ts'
import { isLoopbackName } from './http/host-header.ts'
import { listen } from './http/listen.ts'
import { SHUTDOWN_TIMEOUT_MS } from './limits.ts'
import { createLogger } from './logger.ts'
import { isOpenToHashCollisions } from './node-version.ts'
import type { Metrics } from './observability/metrics.ts'
import { metricsServer } from './observability/metrics-server.ts'
import {
  countWorkers,
  isProduction,
  isSecretPublished,
  readSettings,
  type Settings,
} from './settings.ts'
import { StartError } from './start-error.ts'
import { chooseIdempotencyStore } from './stores/idempotency-store.ts'

/**
 * Serves requests until a signal ends it: in this process, or in `WORKERS` further ones.
 *
 * @throws {StartError} if the service cannot start; in a worker, the primary throws it
 */
export async function serve(): Promise<void> {
  const settings = readSettings()
  const logger = await createLogger(settings)
  if (cluster.isPrimary && isOpenToHashCollisions(process.versions.node)) {
    logger.warn(
      `Node.js ${process.versions.node} is open to hash collisions (CVE-2026-21717): use 20.20.2, 22.22.2, 24.14.1 or later`,
    )
  }
  // SIGHUP reads the file of clients again, and ends nothing.
  const hasClientsFile = settings.clientsFile !== undefined
  if (hasClientsFile) process.on('SIGHUP', () => {})
  const aborting = new AbortController()
  const starting = startProcess(settings, logger, aborting.signal)
  // The processes of one service close together, and their primary logs it for all of them.
  const level = cluster.isWorker ? 'debug' : 'info'
  const grace = closeWithGrace(
    { delay: SHUTDOWN_TIMEOUT_MS, logger, skip: hasClientsFile ? ['SIGHUP'] : [] },
    async ({ signal, err }) => {
      if (err) logger.fatal({ err }, 'closing after an unexpected error')
      else logger[level](`closing on ${signal ?? 'request'}: finishing the requests in flight`)
      aborting.abort()
      const app = await starting.catch(() => undefined) // it fails if it was not complete
      await app?.close()
      logger[level]('closed')
    },
  )
  if (cluster.isWorker) onCloseRequest(grace.close, starting)
  try {
    await starting
  } catch (error) {
    if (aborting.signal.aborted) return
    if (!cluster.isWorker || !(error instanceof StartError)) throw error
    reportStartFailure(error.message)
  }
}

function startProcess(
  settings: Settings,
  logger: Logger,
  signal: AbortSignal,
): Promise<FastifyInstance> {
  if (cluster.isWorker) return startWorker(settings, logger)
  return countWorkers(settings) === 1
    ? startSingle(settings, logger, signal)
    : startPrimary(settings, logger, signal)
}

/** The names of the settings that have the address and the port. */
const LISTEN_SETTINGS = { hostSetting: 'HOST', portSetting: 'PORT' }

async function startSingle(
  settings: Settings,
  logger: Logger,
  signal: AbortSignal,
): Promise<FastifyInstance> {
  const app = await buildApp(settings, logger, { signal })
  return closeOnFailure(app, async () => {
    await registerMaintenance(app, settings, app.metrics)
    await listen(app, {
      ...{ ...LISTEN_SETTINGS, host: settings.host, port: settings.port },
      listenTextResolver: (address) => `order-once listens on ${address}`,
    })
    logFirstSteps(app, settings)
  })
}

/** The process that starts the workers and serves no orders itself. */
async function startPrimary(
  settings: Settings,
  logger: Logger,
  signal: AbortSignal,
): Promise<FastifyInstance> {
  const { app, metrics, startWorkers } = await buildPrimary(settings, logger, signal)
  return closeOnFailure(app, async () => {
    await registerMaintenance(app, settings, metrics)
    await startWorkers()
    logFirstSteps(app, settings)
  })
}

/** One of several processes, whose primary has prepared the stores. */
async function startWorker(settings: Settings, logger: Logger): Promise<FastifyInstance> {
  const app = await buildApp(settings, logger, { stores: storesOfPrimary(settings) })
  return closeOnFailure(app, () =>
    listen(app, {
      ...{ ...LISTEN_SETTINGS, host: settings.host, port: settings.port },
      listenTextResolver: (address) => `ready at ${address}`,
    }),
  )
}

/** What one process of a service does for all of them. */
async function registerMaintenance(
  app: FastifyInstance,
  settings: Settings,
  metrics: Pick<Metrics, 'registry' | 'read'>,
): Promise<void> {
  const { metricsPort: port, metricsHost = settings.host } = settings
  if (port !== undefined) {
    const isLocal = isLoopbackName(metricsHost) && isSecretPublished(settings)
    await app.register(metricsServer, {
      ...settings,
      host: metricsHost,
      hostSetting: settings.metricsHost === undefined ? 'HOST' : 'METRICS_HOST',
      port,
      isLocal,
      readMetrics: metrics.read,
    })
  }
  await app.register(scheduledCleanUp, settings)
  const { redisUrl } = app.stores
  const hasRecordsInRedis = chooseIdempotencyStore(settings, redisUrl !== undefined) === 'redis'
  await app.register(failoverWatch, {
    registry: metrics.registry,
    redisUrl: hasRecordsInRedis ? redisUrl : undefined,
  })
}

async function closeOnFailure(
  app: FastifyInstance,
  start: () => Promise<void>,
): Promise<FastifyInstance> {
  try {
    await start()
    return app
  } catch (error) {
    await app.close()
    throw error
  }
}

/** In development: a warning if anyone can sign, and the command to try next. */
function logFirstSteps(app: FastifyInstance, settings: Settings): void {
  if (isProduction(settings)) return
  if (isSecretPublished(settings)) {
    app.log.warn('the published secret is in use, so anyone can sign orders: set HMAC_SECRET')
  }
  const { port, docs, hmacSecrets } = settings
  if (hmacSecrets.length === 0) return // the command signs with the shared secret
  const url = port === 8080 ? '' : ` --url http://127.0.0.1:${port}`
  const command = `npm run order -- --item tea --amount 3${url}`
  app.log.info(
    `to try it, ${docs === 'on' ? 'open it in a browser, or ' : ''}in another terminal: ${command}`,
  )
}
