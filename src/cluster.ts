/** The primary and its workers: several processes that share one port (node:cluster). */
import cluster, { type Address, type Worker } from 'node:cluster'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { type FastifyBaseLogger, fastify } from 'fastify'
import { sumOverProcesses } from './observability/cluster-metrics.ts'
import { createMetrics } from './observability/metrics.ts'
import { addProcessMetrics } from './observability/process-metrics.ts'
import { countWorkers, type Settings } from './settings.ts'
import { StartError } from './start-error.ts'
import { type Stores, stores } from './stores/prepare.ts'

/** A worker that exits at once, again and again, must not keep the machine busy with its restarts. */
const MIN_RESTART_INTERVAL_MS = 1_000

/** The variables by which a primary passes on that the database is embedded, and its id. */
const IS_EMBEDDED = 'ORDER_ONCE_EMBEDDED'
const DATABASE_ID = 'ORDER_ONCE_DATABASE_ID'

/** The message of a primary to its workers, and that of a worker that cannot start. */
const CLOSE = 'close'
interface StartFailure {
  startFailure: string
}

/**
 * Builds the primary: an app that does not listen, with the stores and the metrics of all processes.
 * Its `close` ends the workers first.
 *
 * @returns `startWorkers`: starts them, and resolves when all of them listen
 * @throws {StartError} if a store that is needed does not respond, or there is no Redis: the processes
 * share the rate limit and the claims in it
 */
export async function buildPrimary(
  settings: Settings,
  logger: FastifyBaseLogger,
  signal: AbortSignal,
) {
  const app = fastify({ loggerInstance: logger, pluginTimeout: 0 })
  try {
    await app.register(stores, { settings, signal })
    const count = countWorkersFor(settings, app.stores, app.log)
    const { registry } = createMetrics()
    addProcessMetrics(registry)
    const workers = createWorkers(count, app.stores, app.log)
    app.addHook('onClose', workers.close)
    return { app, readMetrics: sumOverProcesses(registry), startWorkers: workers.start }
  } catch (error) {
    await app.close()
    throw error
  }
}

/** @throws {StartError} */
function countWorkersFor(settings: Settings, { redisUrl }: Stores, log: FastifyBaseLogger): number {
  if (redisUrl !== undefined) return countWorkers(settings)
  if (settings.workers !== 'auto') {
    throw new StartError('WORKERS must be 1 without Redis: set REDIS_URL, or WORKERS to 1')
  }
  log.info('one process serves requests: WORKERS is auto, and there is no Redis')
  return 1
}

/** Keeps `count` workers running: starts another for each that exits. */
function createWorkers(count: number, stores: Stores, log: FastifyBaseLogger) {
  const starting = new Set<Worker>()
  const listening = new Set<Worker>()
  let isClosing = false

  /** @returns the address on which it listens, once it does */
  function fork(): Promise<Address> {
    const startedAt = performance.now()
    const worker = cluster.fork({
      DATABASE_URL: stores.databaseUrl,
      [DATABASE_ID]: stores.databaseId,
      ...(stores.redisUrl && { REDIS_URL: stores.redisUrl }),
      ...(stores.isEmbedded && { [IS_EMBEDDED]: 'yes' }),
    })
    starting.add(worker)
    let failure: string | undefined
    worker.on('message', (message: Partial<StartFailure>) => {
      failure ??= message.startFailure
    })
    return new Promise((resolve, reject) => {
      worker.once('listening', (address) => {
        starting.delete(worker)
        listening.add(worker)
        resolve(address)
      })
      worker.once('exit', (code, signal) => {
        const exited = `worker ${worker.process.pid} exited (${signal ?? code})`
        if (starting.delete(worker)) reject(new StartError(failure ?? exited))
        if (!listening.delete(worker) || isClosing) return
        log.error(`${exited}; starting a replacement`)
        void startReplacement(startedAt)
      })
    })
  }

  async function startReplacement(startedAt: number): Promise<void> {
    const age = performance.now() - startedAt
    await sleep(Math.max(0, MIN_RESTART_INTERVAL_MS - age))
    while (!isClosing) {
      try {
        return void (await fork())
      } catch (error) {
        if (isClosing) return
        log.error({ err: error }, 'a worker could not be started; trying again')
        await sleep(MIN_RESTART_INTERVAL_MS)
      }
    }
  }

  return {
    /** @throws {StartError} if one cannot start */
    async start(): Promise<void> {
      const [at] = await Promise.all(Array.from({ length: count }, fork))
      log.info(`order-once listens on http://${at?.address}:${at?.port} in ${count} processes`)
    },

    /** Ends all workers, once they have finished their requests. */
    async close(): Promise<void> {
      isClosing = true
      const exited = [...starting, ...listening].map((worker) => once(worker, 'exit'))
      for (const worker of listening) worker.send(CLOSE, () => {}) // it may just have exited
      // They have no requests, and do not receive messages yet.
      for (const worker of starting) worker.process.kill('SIGKILL')
      await Promise.all(exited)
    },
  }
}

/** For a worker: the stores that its primary has prepared. */
export function storesOfPrimary({ databaseUrl, redisUrl }: Settings): Stores {
  const { [DATABASE_ID]: databaseId, [IS_EMBEDDED]: isEmbedded } = process.env
  if (!databaseUrl || !databaseId) throw new Error('a worker is started by its primary')
  return { databaseUrl, databaseId, redisUrl, isEmbedded: isEmbedded === 'yes' }
}

/** For a worker: calls `close` when its primary closes. */
export function onCloseRequest(close: () => void): void {
  process.on('message', (message) => {
    if (message === CLOSE) close()
  })
}

/** For a worker: reports to its primary why it cannot start, and exits. */
export function reportStartFailure(reason: string): void {
  const failure: StartFailure = { startFailure: reason }
  process.send?.(failure, () => process.exit(1))
}
