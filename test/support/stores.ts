import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import postgres from 'postgres'
import { afterAll, inject } from 'vitest'
import { createDatabase, TEMPLATE } from './database.ts'

// This module is loaded anew for every test file, and so are the stores in it: a file has a database
// and a Redis key space of its own. They go with the servers that hold them.

/** Whether the tests have a Redis; without one, a loud line said so and the suites on it are left out. */
export const hasRedis = inject('redisUrl') !== ''

/** A new database without any table. */
export function createEmptyDatabase(): Promise<string> {
  return createDatabase(inject('postgresUrl'), nameOfDatabase())
}

/** The file's database, without any row in it: its URL and a client to look into it. */
export async function emptyDatabase() {
  database ??= openDatabase()
  const { url, sql } = await database
  await sql`truncate orders, idempotency_records`
  return { url, sql }
}

/** The file's key space in Redis, without any key in it. */
export async function emptyRedisSpace() {
  redisSpace ??= openRedisSpace()
  await redisSpace.flush()
  return redisSpace
}

let database: ReturnType<typeof openDatabase> | undefined
let redisSpace: ReturnType<typeof openRedisSpace> | undefined

async function openDatabase() {
  const url = await createDatabase(inject('postgresUrl'), nameOfDatabase(), { template: TEMPLATE })
  return { url, sql: postgres(url, { max: 2, onnotice: () => {} }) }
}

const nameOfDatabase = () => `test_${randomUUID().replaceAll('-', '')}`

function openRedisSpace() {
  const url = new URL(inject('redisUrl'))
  const prefix = `test-${randomUUID()}:`
  url.searchParams.set('keyPrefix', prefix)
  const redis = new Redis(url.href)

  async function flush(): Promise<void> {
    // KEYS and its answer bear the prefix, which the client puts before the keys of other commands.
    for (const key of await redis.keys(`${prefix}*`)) await redis.del(key.slice(prefix.length))
  }
  return { url: url.href, redis, flush }
}

afterAll(async () => {
  await (await database)?.sql.end()
  if (redisSpace) {
    await redisSpace.flush()
    redisSpace.redis.disconnect()
  }
})
