import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { SECRET } from '../support/client.ts'
import { TcpProxy } from '../support/tcp-proxy.ts'
import { Instance } from './instance.ts'
import { PostgresServer } from './postgres-server.ts'
import { RedisServer } from './redis-server.ts'

/** In how many processes each instance runs. While one is down and one starts, there is a third. */
const INSTANCES = [2, 1, 1]

/** Short, so that leases end, and are renewed, within a fault and within the run. */
const LEASE_SECONDS = 3

/** All that takes part in a run but the clients: instances, proxies, stores. */
export interface World {
  postgres: PostgresServer
  redis: RedisServer
  toPostgres: TcpProxy
  toRedis: TcpProxy
  instances: Instance[]
  /** Ends all processes and removes their files. */
  close(): Promise<void>
}

/** Starts everything. @throws after ending what had been started */
export async function openWorld(): Promise<World> {
  const closers: (() => Promise<unknown>)[] = []
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) {
      // What remains after a failure is killed when this process exits.
      await closer().catch((error) => console.error(error))
    }
  }
  try {
    const folder = await mkdtemp(join(tmpdir(), 'order-once-faults-'))
    closers.push(() => rm(folder, { recursive: true, force: true }))

    const postgres = await PostgresServer.start(folder)
    // As root, its files are elsewhere.
    closers.push(() => rm(postgres.directory, { recursive: true, force: true }))
    closers.push(() => postgres.close())
    const toPostgres = await TcpProxy.start(postgres.port)
    closers.push(() => toPostgres.close())

    const redis = await RedisServer.start()
    closers.push(() => redis.kill())
    const toRedis = await TcpProxy.start(redis.port)
    closers.push(() => toRedis.close())

    const databaseUrl = new URL(postgres.url)
    databaseUrl.port = `${toPostgres.port}`
    const env = {
      HMAC_SECRET: SECRET,
      DATABASE_URL: databaseUrl.href,
      REDIS_URL: `redis://127.0.0.1:${toRedis.port}`,
      // The limit has tests of its own.
      RATE_LIMIT_MAX: '1000000000',
      IDEMPOTENCY_LEASE_SECONDS: `${LEASE_SECONDS}`,
    }
    const instances: Instance[] = []
    for (const [index, workers] of INSTANCES.entries()) {
      const variables = { ...env, WORKERS: `${workers}` }
      const instance = new Instance(index, await freePort(), folder, variables)
      closers.push(() => instance.kill())
      instance.start()
      instances.push(instance)
    }
    await Promise.all(instances.map((instance) => instance.listens()))
    return { postgres, redis, toPostgres, toRedis, instances, close }
  } catch (error) {
    await close()
    throw error
  }
}
