/** The primary and its workers: several processes that share one port (node:cluster). */
import cluster, { type Address, type Worker } from 'node:cluster'
import { setTimeout as sleep } from 'node:timers/promises'
import { type FastifyBaseLogger, fastify } from 'fastify'
import { sumOverProcesses } from './observability/cluster-metrics.ts'
import { createMetrics } from './observability/metrics.ts'
import { addProcessMetrics } from './observability/process-metrics.ts'
import { countWorkers, type Settings } from './settings.ts'
import { StartError } from './start-error.ts'
import { readLastPrimary, setLastPrimary } from './stores/postgres-primary.ts'
import { type Stores, stores } from './stores/prepare.ts'

/** A worker that exits at once, again and again, must not keep the machine busy with its restarts. */
const MIN_RESTART_INTERVAL_MS = 1_000

/** The variables by which a primary passes on that the database is embedded, its id, and its last primary. */
const IS_EMBEDDED = 'ORDER_ONCE_EMBEDDED'
const DATABASE_ID = 'ORDER_ONCE_DATABASE_ID'
const LAST_PRIMARY = 'ORDER_ONCE_LAST_PRIMARY'

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
    if (settings.clientsFile !== undefined) process.on('SIGHUP', workers.readClients)
    const metrics = { registry, read: sumOverProcesses(registry) }
    return { app, metrics, startWorkers: workers.start }
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
  const ends = new Set<Promise<unknown>>()
  let isClosing = false

  /**
   * @returns the address on which it listens, once it does
   * @throws {StartError} if it ends before, or cannot be spawned
   */
  async function fork(): Promise<Address> {
    const startedAt = performance.now()
    const worker = spawnWorker(stores)
    worker.once('online', () => closeUnacceptedConnectionOnExit(worker))
    starting.add(worker)
    let failure: string | undefined
    worker.on('message', (message: Partial<StartFailure>) => {
      failure ??= message.startFailure
    })
    return new Promise((resolve, reject) => {
      worker.once('listening', (address) => {
        if (!starting.delete(worker)) return // it has exited: its last message arrived after that
        listening.add(worker)
        resolve(address)
      })
      const end = waitForEnd(worker).then((reason) => {
        ends.delete(end)
        if (starting.delete(worker)) reject(new StartError(failure ?? reason))
        if (!listening.delete(worker) || isClosing) return
        log.error(`${reason}; starting a replacement`)
        void startReplacement(startedAt)
      })
      ends.add(end)
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
        log.error(`no replacement was started: ${(error as Error).message}; trying again`)
        await sleep(MIN_RESTART_INTERVAL_MS)
      }
    }
  }

  function killWorkers(workers: Iterable<Worker>): void {
    for (const worker of workers) worker.process.kill('SIGKILL')
  }

  // A worker that hangs does not end by itself when this process has run out of time.
  process.once('exit', () => killWorkers([...starting, ...listening]))

  return {
    /** @throws {StartError} if one cannot start */
    async start(): Promise<void> {
      const [at] = await Promise.all(Array.from({ length: count }, fork))
      log.info(`order-once listens on http://${at?.address}:${at?.port} in ${count} processes`)
    },

    /** Makes all workers read the file of clients again. */
    readClients(): void {
      for (const worker of listening) worker.process.kill('SIGHUP')
    },

    /** Ends all workers, once they have finished their requests. */
    async close(): Promise<void> {
      isClosing = true
      for (const worker of listening) worker.send(CLOSE, () => {}) // it may just have exited
      // They have no requests, and do not receive messages yet.
      killWorkers(starting)
      await Promise.all(ends)
    },
  }
}

/** @throws {StartError} if the system refuses: some refusals are thrown, others are events */
function spawnWorker(stores: Stores): Worker {
  const lastPrimary = readLastPrimary(stores.databaseUrl)
  try {
    return cluster.fork({
      DATABASE_URL: stores.databaseUrl,
      [DATABASE_ID]: stores.databaseId,
      ...(lastPrimary && { [LAST_PRIMARY]: JSON.stringify(lastPrimary) }),
      ...(stores.redisUrl && { REDIS_URL: stores.redisUrl }),
      ...(stores.isEmbedded && { [IS_EMBEDDED]: 'yes' }),
    })
  } catch (error) {
    throw new StartError(describeSpawnFailure(error))
  }
}

/**
 * Waits until a worker has exited, or could not be spawned. Handles its 'error' events, each of which
 * would end the primary otherwise.
 *
 * @returns what happened
 */
function waitForEnd(worker: Worker): Promise<string> {
  return new Promise((resolve) => {
    worker.once('exit', (code, signal) =>
      resolve(`worker ${worker.process.pid} exited (${signal ?? code})`),
    )
    worker.on('error', (error) => {
      // Node could not send it a message or a connection: it is about to exit.
      if (worker.process.pid !== undefined) return
      delete cluster.workers?.[worker.id] // Node deletes only workers that exit
      resolve(describeSpawnFailure(error))
    })
  })
}

/**
 * When a worker exits, closes the connection that it was sent and has not accepted. Node (20 to 24) forgets it:
 * it would stay open without a response. It relies on the messages of node:cluster itself, `newconn` and
 * `accepted`; without them it has no effect.
 */
function closeUnacceptedConnectionOnExit({ process: child }: Worker): void {
  const send = child.send.bind(child) as (...args: unknown[]) => boolean
  let sent: { close(): void } | undefined // Node sends the next one when this one is accepted
  const sendAndRemember = (...args: unknown[]) => {
    const [message, handle] = args as [{ act?: string }, typeof sent]
    if (message.act === 'newconn') sent = handle
    return send(...args)
  }
  Object.assign(child, { send: sendAndRemember })
  // Before the listener of Node, which sends the next connection.
  child.prependListener('internalMessage' as 'message', (message) => {
    if (Object.hasOwn(message as object, 'accepted')) sent = undefined
  })
  child.once('exit', () => sent?.close())
}

const describeSpawnFailure = (error: unknown) =>
  `a worker process could not be spawned (${(error as Error).message})`

/** For a worker: the stores that its primary has prepared. */
export function storesOfPrimary({ databaseUrl, redisUrl }: Settings): Stores {
  const { [DATABASE_ID]: databaseId, [IS_EMBEDDED]: isEmbedded } = process.env
  if (!databaseUrl || !databaseId) throw new Error('a worker is started by its primary')
  const lastPrimary = process.env[LAST_PRIMARY]
  if (lastPrimary) setLastPrimary(databaseUrl, JSON.parse(lastPrimary))
  return { databaseUrl, databaseId, redisUrl, isEmbedded: isEmbedded === 'yes' }
}

/**
 * For a worker: calls `close` when its primary closes or is gone.
 *
 * @param starting its start
 */
export function onCloseRequest(close: () => void, starting: Promise<unknown>): void {
  const closeOnce = callOnce(close)
  process.on('message', (message) => {
    if (message === CLOSE) closeOnce()
  })
  process.on('disconnect', closeOnce)
  // Node could not send a message to the primary, which is gone: 'disconnect' follows.
  process.on('error', () => {})
  // Node ends a worker at once when its primary is gone. After the start, its requests must finish.
  starting.then(
    () => Object.assign(cluster.worker ?? {}, { exitedAfterDisconnect: true }),
    () => {},
  )
}

/** For a worker: reports to its primary why it cannot start, and exits. */
export function reportStartFailure(reason: string): void {
  const failure: StartFailure = { startFailure: reason }
  process.send?.(failure, () => process.exit(1))
}

function callOnce(call: () => void): () => void {
  let isCalled = false
  return () => {
    if (isCalled) return
    isCalled = true
    call()
  }
}
