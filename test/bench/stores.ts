// Starts a PostgreSQL and a Redis for the benchmark, with a database for each service.
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import postgres from 'postgres'
import { startEmbeddedPostgres } from '../../src/stores/embedded/postgres.ts'
import { startPrivateRedis } from '../support/private-redis.ts'
import { readCpuTime } from './cpu-time.ts'

export type Stores = Awaited<ReturnType<typeof startStores>>

/** What one service stores in: a database of Postgres, and one of Redis. */
export interface Database {
  postgresUrl: string
  redisUrl: string
  /** @throws if no service has created the table */
  countOrders(): Promise<number>
  drop(): Promise<void>
}

/** @throws if a store does not start, or if Postgres does not wait for the disk at each commit */
export async function startStores() {
  const closers: (() => unknown)[] = []
  async function close(): Promise<void> {
    for (const closer of closers.splice(0).reverse()) await closer()
  }
  try {
    const folder = await mkdtemp(join(tmpdir(), 'order-once-bench-'))
    closers.push(() => rm(folder, { recursive: true, force: true }))
    const embedded = await startEmbeddedPostgres(folder)
    // Postgres refuses to run as root; its files are then in another folder.
    closers.push(() => rm(embedded.directory, { recursive: true, force: true }))
    closers.push(() => embedded.stop())
    const sql = connect(embedded.url)
    closers.push(() => sql.end({ timeout: 1 }))
    const privateRedis = await startPrivateRedis()
    closers.push(() => privateRedis.stop())
    const redis = new Redis(privateRedis.url)
    closers.push(() => redis.disconnect())

    const readSetting = async (name: string): Promise<string> =>
      (await sql`select current_setting(${name}) as value`)[0]?.value
    assert.equal(await readSetting('fsync'), 'on')
    assert.equal(await readSetting('synchronous_commit'), 'on')
    const pidFile = await readFile(join(embedded.directory, 'data', 'postmaster.pid'), 'utf8')
    const redisInfo = await redis.info('server')
    const redisPid = Number(/process_id:(\d+)/.exec(redisInfo)?.[1])

    let databases = 0
    async function createDatabase(): Promise<Database> {
      const redisNumber = databases % 16 // Redis has 16 databases by default
      const name = `bench_${databases++}`
      await sql`create database ${sql(name)}`
      const postgresUrl = Object.assign(new URL(embedded.url), { pathname: name }).href
      const session = connect(postgresUrl)
      return {
        postgresUrl,
        redisUrl: `${privateRedis.url}/${redisNumber}`,
        countOrders: async () => (await session`select count(*)::int from orders`)[0]?.count,
        drop: async () => {
          await session.end()
          await sql`drop database ${sql(name)} with (force)`
          await redis.multi().select(redisNumber).flushdb().exec()
        },
      }
    }

    return {
      /** an empty folder, to run programs in: without `.env` */
      folder,
      postgresVersion: await readSetting('server_version'),
      redisVersion: /redis_version:(\S+)/.exec(redisInfo)?.[1] ?? 'unknown',
      createDatabase,
      /** Writes changed pages to the disk, so that each measurement starts with none. */
      checkpoint: async () => void (await sql`checkpoint`),
      /** µs so far */
      readCpuTimes: () => ({
        postgres: readCpuTime(Number.parseInt(pidFile, 10)),
        redis: readCpuTime(redisPid),
      }),
      /** Runs this first at `close`. */
      onClose: (closer: () => unknown) => void closers.push(closer),
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

function connect(url: string): postgres.Sql {
  return postgres(url, { max: 1, onnotice: () => {} })
}
