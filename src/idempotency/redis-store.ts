import type { Redis, Result } from 'ioredis'
import Type, { type Static } from 'typebox'
import Schema from 'typebox/schema'
import type { Claim, IdempotencyStore } from './store.ts'

declare module 'ioredis' {
  interface RedisCommander<Context> {
    completeRecord(
      key: string,
      owner: string,
      record: string,
      ttlMs: number,
    ): Result<0 | 1, Context>
    abandonRecord(key: string, owner: string): Result<0 | 1, Context>
  }
}

// An owner is recognised by the text `"token":"…"`. Only a mark holds it: within the JSON string of
// a finished answer the quotes would be escaped.
const COMPLETE = `
local held = redis.call('GET', KEYS[1])
if held and not string.find(held, ARGV[1], 1, true) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1`

const ABANDON = `
local held = redis.call('GET', KEYS[1])
if not held or not string.find(held, ARGV[1], 1, true) then return 0 end
return redis.call('DEL', KEYS[1])`

const Mark = Type.Object({
  state: Type.Literal('in_flight'),
  payload_hash: Type.String(),
  token: Type.String(),
  created_at: Type.String(),
})

const Completed = Type.Object({
  state: Type.Literal('completed'),
  status_code: Type.Integer(),
  headers: Type.Record(Type.String(), Type.String()),
  response: Type.String(),
  payload_hash: Type.String(),
  created_at: Type.String(),
})

type StoredRecord = Static<typeof Mark> | Static<typeof Completed>
const storedRecord = Schema.Compile(Type.Union([Mark, Completed]))

/**
 * Keeps each record as a JSON string under `idemp:<key>`, in Redis 7 or later, where `SET` takes
 * `NX` and `GET` together.
 *
 * @param options `leaseMs`: how long a claim holds; `ttlMs`: how long an answer is remembered
 */
export function createRedisStore(
  redis: Redis,
  options: { leaseMs: number; ttlMs: number },
): IdempotencyStore {
  const { leaseMs, ttlMs } = options
  redis.defineCommand('completeRecord', { numberOfKeys: 1, lua: COMPLETE })
  redis.defineCommand('abandonRecord', { numberOfKeys: 1, lua: ABANDON })

  return {
    async claim(key, fingerprint, token): Promise<Claim> {
      const mark: Static<typeof Mark> = {
        state: 'in_flight',
        payload_hash: fingerprint,
        token,
        created_at: new Date().toISOString(),
      }
      const held = await redis.set(recordKey(key), JSON.stringify(mark), 'PX', leaseMs, 'NX', 'GET')
      if (held === null) return { state: 'new' }
      const record = parseRecord(held)
      if (record.state === 'in_flight' && record.token === token) return { state: 'new' }
      if (record.payload_hash !== fingerprint) return { state: 'mismatch' }
      if (record.state === 'in_flight') return { state: 'in_flight' }
      const { status_code: statusCode, headers, response: body } = record
      return { state: 'completed', answer: { statusCode, headers, body } }
    },

    async complete(key, token, { fingerprint, answer }) {
      const record: Static<typeof Completed> = {
        state: 'completed',
        status_code: answer.statusCode,
        headers: answer.headers,
        response: answer.body,
        payload_hash: fingerprint,
        created_at: new Date().toISOString(),
      }
      await redis.completeRecord(recordKey(key), ownerOf(token), JSON.stringify(record), ttlMs)
    },

    async abandon(key, token) {
      await redis.abandonRecord(recordKey(key), ownerOf(token))
    },
  }
}

const recordKey = (key: string) => `idemp:${key}`
const ownerOf = (token: string) => `"token":${JSON.stringify(token)}`

function parseRecord(text: string): StoredRecord {
  const value: unknown = JSON.parse(text)
  if (storedRecord.Check(value)) return value
  throw new Error('the idempotency record is not of a known form')
}
