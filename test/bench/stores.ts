import { rm } from 'node:fs/promises'
import { Redis } from 'ioredis'
import type postgres from 'postgres'
import { migrateDatabase } from '../../src/stores/migrate.ts'
import { disown, own } from '../faults/owned-processes.ts'
import { PostgresServer } from '../faults/postgres-server.ts'
import { startPrivateRedis } from '../support/private-redis.ts'
import { cpuOfTree } from './process-tree.ts'

/** A Postgres and a Redis of one's own. */
export interface Stores {
  databaseUrl: string
  redisUrl: string
  sql: postgres.Sql
  postgresVersion: string
  redisVersion: string
  /** µs so far; null if not measured */
  cpu(): { postgres: number | null; redis: number | null }
  /** resident memory of Redis in bytes */
  redisMemory(): Promise<number>
  /** Removes all orders and all that Redis remembers. */
  empty(): Promise<void>
  /** Has each measurement begin with nothing left to write. */
  settle(): Promise<void>
  countOrders(): Promise<number>
  close(): Promise<void>
}

/**
 * Starts both, with the newest schema. @param folder for Postgres's files
 *
 * @throws also if Postgres does not wait for the disk
 */
export async function openStores(folder: string): Promise<Stores> {
  const closers: (() => Promise<unknown>)[] = []
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) {
      await closer().catch((error) => console.error(error))
    }
  }
  try {
    const postgres = await PostgresServer.start(folder)
    // As root, its files are elsewhere.
    closers.push(() => rm(postgres.directory, { recursive: true, force: true }))
    closers.push(() => postgres.close())
    await migrateDatabase(postgres.url)
    const sql = postgres.connect()
    closers.push(() => sql.end({ timeout: 1 }))
    const [server] = await sql`
      select current_setting('fsync') as fsync,
        current_setting('synchronous_commit') as synchronous_commit,
        current_setting('server_version') as version,
        split_part(pg_read_file('postmaster.pid'), chr(10), 1)::int as postmaster`
    if (server?.fsync !== 'on' || server.synchronous_commit !== 'on') {
      throw new Error('Postgres does not wait for the disk: the figures would mean nothing')
    }

    const privateRedis = await startPrivateRedis()
    closers.push(() => privateRedis.stop())
    const redis = new Redis(privateRedis.url)
    redis.on('error', () => {}) // its commands tell
    closers.push(async () => redis.disconnect())
    const redisInfo = async (name: string) =>
      new RegExp(`^${name}:(.*?)\r?$`, 'm').exec(await redis.info())?.[1] ?? ''
    const redisPid = Number(await redisInfo('process_id'))
    own(redisPid)
    closers.push(async () => disown(redisPid))

    return {
      databaseUrl: postgres.url,
      redisUrl: privateRedis.url,
      sql,
      postgresVersion: server.version,
      redisVersion: await redisInfo('redis_version'),
      cpu: () => ({ postgres: cpuOfTree(server.postmaster), redis: cpuOfTree(redisPid) }),
      redisMemory: async () => Number(await redisInfo('used_memory_rss')),
      empty: async () => {
        await sql`truncate orders`
        await redis.flushall()
      },
      settle: async () => void (await sql`checkpoint`),
      countOrders: async () => {
        const [row] = await sql`select count(*)::int as count from orders`
        return row?.count
      },
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}
