// Starts the compiled service of a checkout, or the bare Fastify route, and stops it.
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { spawnChild } from '../support/child-processes.ts'
import { until } from '../support/until.ts'
import { type Case, CLIENTS, CLIENTS_FILE, SECRET } from './cases.ts'
import { readCpuTime } from './cpu-time.ts'
import type { Database, Stores } from './stores.ts'

/** A program that serves requests, in one process or several. */
export interface Service {
  port: number
  /** undefined: it stores nothing */
  database?: Database
  /** µs so far, of all its processes */
  readCpuTime(): number
  stop(): Promise<void>
}

export const THIS_CHECKOUT = fileURLToPath(new URL('../../', import.meta.url))
const BARE_FASTIFY = fileURLToPath(new URL('bare-fastify.js', import.meta.url))

const START_TIMEOUT_MS = 30_000
/** One of several processes responds before the others listen. */
const ALL_LISTEN_AFTER_MS = 1_000

/**
 * Starts the compiled service of a checkout, on a new database and without a rate limit.
 *
 * @throws if it is not compiled or does not start
 */
export async function startService(
  checkout: string,
  stores: Stores,
  { processes, env }: Pick<Case, 'processes' | 'env'>,
): Promise<Service> {
  // Older checkouts have `dist/server.js`, and no `off` for the rate limit.
  const main = resolve(checkout, 'dist/main.js')
  const isNew = existsSync(main)
  const args = isNew ? [main, 'serve'] : [resolve(checkout, 'dist/server.js')]
  const database = await stores.createDatabase()
  await writeFile(resolve(stores.folder, CLIENTS_FILE), CLIENTS)
  const service = await start(args, stores, {
    WORKERS: `${processes}`,
    DATABASE_URL: database.postgresUrl,
    REDIS_URL: database.redisUrl,
    HMAC_SECRET: SECRET,
    RATE_LIMIT_MAX: isNew ? 'off' : '1000000000',
    // Responses to wrong signatures are measured, not their limit.
    SIGNATURE_FAILURES_MAX: '1000000000',
    LOG_LEVEL: 'warn',
    ...env,
  })
  async function stop() {
    await service.stop()
    await database.drop()
  }
  return { ...service, database, stop }
}

/** Starts the route that stores nothing. */
export function startBareFastify(stores: Stores, processes: number): Promise<Service> {
  return start([BARE_FASTIFY], stores, { WORKERS: `${processes}` })
}

/** Without `stop`, the program ends before its stores do. */
async function start(
  args: string[],
  stores: Stores,
  env: Record<string, string>,
): Promise<Service> {
  const port = await freePort()
  const listen = { HOST: '127.0.0.1', PORT: `${port}` }
  const child = spawnChild(process.execPath, args, {
    cwd: stores.folder,
    env: { PATH: process.env.PATH, ...listen, ...env },
    stdio: 'inherit',
  })
  const closed = once(child, 'close')
  // Before the stores end. A service that the interrupted load starts after that ends with this process.
  stores.onClose(() => child.kill('SIGKILL'))
  await until(() => {
    const end = child.exitCode ?? child.signalCode
    if (end !== null) throw new Error(`${args.join(' ')} exited with ${end}`)
    return fetch(`http://127.0.0.1:${port}/health/live`).catch(() => undefined)
  }, START_TIMEOUT_MS)
  if (env.WORKERS !== '1') await sleep(ALL_LISTEN_AFTER_MS)
  return {
    port,
    readCpuTime: () => readCpuTime(Number(child.pid)),
    stop: async () => {
      child.kill('SIGTERM')
      await closed
    },
  }
}
