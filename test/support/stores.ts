/** The stores of a test file: a database and a Redis key space of its own. */
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

/** Empties the file's key space in Redis. */
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
  const url = new URL(inject('redisUrl'))
  const prefix = `test-${randomUUID()}:`
  url.searchParams.set('keyPrefix', prefix)
  const redis = new Redis(url.href)

  async function flush(): Promise<void> {
    // The client adds the prefix to the keys of most commands, but not to those of KEYS.
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
