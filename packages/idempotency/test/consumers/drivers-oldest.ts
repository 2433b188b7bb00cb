import { readFile } from 'node:fs/promises'
import {
  createPostgresStore,
  createRedisStore,
  deleteExpiredRecords,
} from '@order-once/idempotency'
import { Redis } from 'ioredis'
import pg from 'pg'
import { memoryStore, repeatRequest, TIMES } from './application.js'

const { POSTGRES_URL, REDIS_URL = '' } = process.env
const pool = new pg.Pool({ connectionString: POSTGRES_URL })
const sql = new URL(import.meta.resolve('@order-once/idempotency/idempotency-records.sql'))
await pool.query(await readFile(sql, 'utf8'))
const runQuery = (text: string, values: unknown[]) =>
  pool.query(text, values).then(({ rows }) => rows)
const redis = new Redis(REDIS_URL)
console.log(
  JSON.stringify({
    memory: await repeatRequest(memoryStore()),
    pg: await repeatRequest(createPostgresStore(runQuery, TIMES)),
    ioredis: await repeatRequest(createRedisStore(redis, TIMES)),
  }),
)
await deleteExpiredRecords(runQuery, 10)
await pool.end()
redis.disconnect()
