import cluster, { type Address, type Worker } from 'node:cluster'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Settings } from './settings.ts'
import { StartError } from './start-error.ts'
import type { StoreUrls } from './storage/stores.ts'

/** One that dies at once, again and again, must not take up the machine by being started. */
const MIN_LIFE_MS = 1_000

/** A variable by which a primary tells its workers that the database is its own. */
const EMBEDDED = 'ORDER_ONCE_EMBEDDED'

/** What a primary says to a worker, and a worker that cannot start to its primary. */
const CLOSE = 'close'
interface StartFailure {
  cannotStart: string
}

/**
 * Runs this program in `count` processes more, which share one port (node:cluster), and puts another
 * in the place of each that ends before `close`.
 *
 * @param onStart called with each of them
 * @returns once all of them listen: what lets them finish the requests at work, and ends them
 * @throws {StartError} after ending all, if one cannot start
 */
export async function startWorkers(
  count: number,
  urls: StoreUrls,
  log: Logger,
  onStart: (worker: Worker) => void,
): Promise<() => Promise<void>> {
  const starting = new Set<Worker>()
  const listening = new Set<Worker>()
  let isClosing = false

  /** @returns once it listens: where */
  function fork(): Promise<Address> {
    const bornAt = performance.now()
    const worker = cluster.fork({
      DATABASE_URL: urls.databaseUrl,
      ...(urls.redisUrl && { REDIS_URL: urls.redisUrl }),
      ...(urls.isEmbedded && { [EMBEDDED]: 'yes' }),
    })
    starting.add(worker)
    onStart(worker)
    let failure: string | undefined
    worker.on('message', (message: Partial<StartFailure>) => {
      failure ??= message.cannotStart
    })
    return new Promise((resolve, reject) => {
      worker.once('listening', (address) => {
        starting.delete(worker)
        listening.add(worker)
        resolve(address)
      })
      worker.once('exit', (code, signal) => {
        const how = `process ${worker.process.pid} has ended with ${signal ?? code}`
        if (starting.delete(worker)) reject(new StartError(failure ?? how))
        if (!listening.delete(worker) || isClosing) return
        log.error(`${how}; another takes its place`)
        void replace(bornAt)
      })
    })
  }

  async function replace(bornAt: number): Promise<void> {
    const age = performance.now() - bornAt
    await sleep(Math.max(0, MIN_LIFE_MS - age))
    while (!isClosing) {
      try {
        return void (await fork())
      } catch (error) {
        log.error({ err: error }, 'a process could not be started; another try follows')
        await sleep(MIN_LIFE_MS)
      }
    }
  }

  async function close(): Promise<void> {
    isClosing = true
    const ended = [...starting, ...listening].map((worker) => once(worker, 'exit'))
    for (const worker of listening) worker.send(CLOSE)
    // They have nothing to finish, and do not hear us yet.
    for (const worker of starting) worker.process.kill('SIGKILL')
    await Promise.all(ended)
  }

  try {
    const [at] = await Promise.all(Array.from({ length: count }, fork))
    log.info(`order-once listens on http://${at?.address}:${at?.port} in ${count} processes`)
    return close
  } catch (error) {
    await close()
    throw error
  }
}

/** For a worker: where its primary has prepared the stores. */
export function urlsOfPrimary({ databaseUrl, redisUrl }: Settings): StoreUrls {
  if (databaseUrl === undefined) throw new Error('a worker is started by its primary')
  return { databaseUrl, redisUrl, isEmbedded: process.env[EMBEDDED] === 'yes' }
}

/** For a worker: calls back when its primary wants it to finish. */
export function onCloseRequest(close: () => void): void {
  process.on('message', (message) => {
    if (message === CLOSE) close()
  })
}

/** For a worker: tells its primary why it cannot start, and ends. */
export function failToStart(reason: string): void {
  const failure: StartFailure = { cannotStart: reason }
  process.send?.(failure, () => process.exit(1))
}
