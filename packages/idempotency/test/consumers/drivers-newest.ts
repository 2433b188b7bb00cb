import { readFile } from 'node:fs/promises'
import { createPostgresStore, createRedisStore } from '@order-once/idempotency'
import { Redis } from 'ioredis'
import postgres from 'postgres'
import { memoryStore, repeatRequest, TIMES } from './application.js'

const { POSTGRES_URL = '', REDIS_URL = '' } = process.env
const client = postgres(POSTGRES_URL)
const sql = new URL(import.meta.resolve('@order-once/idempotency/idempotency-records.sql'))
await client.unsafe(await readFile(sql, 'utf8'))
const postgresStore = createPostgresStore((text, values) => client.unsafe(text, values), TIMES)
const redis = new Redis(REDIS_URL)
console.log(
  JSON.stringify({
    memory: await repeatRequest(memoryStore()),
    postgres: await repeatRequest(postgresStore),
    ioredis: await repeatRequest(createRedisStore(redis, TIMES)),
  }),
)
await client.end()
redis.disconnect()
