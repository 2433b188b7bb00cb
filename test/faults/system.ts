/** The system under test: instances of the service, and their stores behind proxies. */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { SECRET } from '../support/client.ts'
import { TcpProxy } from '../support/tcp-proxy.ts'
import { removeAtExit } from './exit-cleanup.ts'
import { Instance } from './instance.ts'
import { PostgresServer } from './postgres-server.ts'
import { RedisServer } from './redis-server.ts'

/** WORKERS of each instance. Three: while one is down and another starts, there is a third. */
const WORKERS = [2, 1, 1]

/** The instance with several workers. */
export const CLUSTERED_INSTANCE = 0

/** Short, so that leases end, and are renewed, within a fault and within the run. */
const LEASE_SECONDS = 3

export interface System {
  postgres: PostgresServer
  redis: RedisServer
  postgresProxy: TcpProxy
  redisProxy: TcpProxy
  instances: Instance[]
  /** Ends all processes. Their files are removed when this process exits. */
  close(): Promise<void>
}

/**
 * Starts everything.
 *
 * @throws if something does not start, or `stopped` is aborted, after it has ended what was started
 */
export async function startSystem(stopped: AbortSignal): Promise<System> {
  const closers: (() => Promise<unknown>)[] = []
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) {
      // What a failure leaves behind is killed when this process exits.
      await closer().catch((error) => console.error(error))
    }
  }
  try {
    const folder = await mkdtemp(join(tmpdir(), 'order-once-faults-'))
    removeAtExit(folder)

    const postgres = await PostgresServer.start(folder)
    closers.push(() => postgres.close())
    stopped.throwIfAborted()
    const postgresProxy = await TcpProxy.start(postgres.port)
    closers.push(() => postgresProxy.close())

    const redis = await RedisServer.start()
    closers.push(() => redis.kill())
    const redisProxy = await TcpProxy.start(redis.port)
    closers.push(() => redisProxy.close())

    const databaseUrl = new URL(postgres.url)
    databaseUrl.port = `${postgresProxy.port}`
    const env = {
      HMAC_SECRET: SECRET,
      DATABASE_URL: databaseUrl.href,
      REDIS_URL: `redis://127.0.0.1:${redisProxy.port}`,
      RATE_LIMIT_MAX: 'off',
      IDEMPOTENCY_LEASE_SECONDS: `${LEASE_SECONDS}`,
    }
    const instances: Instance[] = []
    for (const workers of WORKERS) {
      const instance = new Instance(await freePort(), folder, { ...env, WORKERS: `${workers}` })
      closers.push(() => instance.kill())
      instance.start()
      instances.push(instance)
    }
    await Promise.all(instances.map((instance) => instance.waitUntilListening(stopped)))
    return { postgres, redis, postgresProxy, redisProxy, instances, close }
  } catch (error) {
    await close()
    throw error
  }
}
