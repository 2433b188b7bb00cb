/** The stores of a test file: a database of Postgres and one of Redis, for it alone. */
import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import postgres from 'postgres'
import { afterAll, inject } from 'vitest'
import { createDatabase, TEMPLATE } from './database.ts'

// This module is loaded once for each test file, and so are the stores in it. They end with the servers
// of the test run.

/** Whether the tests have a Redis; without one, a message says so, and the suites on it are left out. */
export const hasRedis = inject('redisUrl') !== ''

/** A new database without any table. */
export function createEmptyDatabase(): Promise<string> {
  return createDatabase(inject('postgresUrl'), createDatabaseName())
}

/** Empties the file's database. @returns its URL and a client */
export async function emptyDatabase() {
  database ??= openDatabase()
  const { url, sql } = await database
  await sql`truncate orders, idempotency_records`
  return { url, sql }
}

/** Empties the file's database of Redis. */
export async function emptyRedisSpace() {
  redisSpace ??= openRedisSpace()
  await redisSpace.flush()
  return redisSpace
}

let database: ReturnType<typeof openDatabase> | undefined
let redisSpace: ReturnType<typeof openRedisSpace> | undefined

async function openDatabase() {
  const url = await createDatabase(inject('postgresUrl'), createDatabaseName(), {
    template: TEMPLATE,
  })
  return { url, sql: postgres(url, { max: 2, onnotice: () => {} }) }
}

const createDatabaseName = () => `test_${randomUUID().replaceAll('-', '')}`

function openRedisSpace() {
  // Files that run at the same time have different numbers, from 1 on.
  const url = `${inject('redisUrl')}/${process.env.VITEST_POOL_ID}`
  const redis = new Redis(url)
  return { url, redis, flush: async () => void (await redis.flushdb()) }
}

afterAll(async () => {
  await (await database)?.sql.end()
  if (redisSpace) {
    await redisSpace.flush()
    redisSpace.redis.disconnect()
  }
})
