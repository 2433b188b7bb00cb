import type { Redis, Result } from 'ioredis'
import { answerIn, readRecord, writeCompleted, writeInFlight } from './record.ts'
import { createRedisWatcher } from './redis-watcher.ts'
import type { Claim, IdempotencyStore, ReportCorruptRecord } from './store.ts'

declare module 'ioredis' {
  interface RedisCommander<Context> {
    completeRecord(
      key: string,
      owner: string,
      record: string,
      ttlMs: number,
    ): Result<0 | 1, Context>
    abandonRecord(key: string, owner: string): Result<0 | 1, Context>
    renewRecord(key: string, owner: string, leaseMs: number): Result<0 | 1, Context>
    discardRecord(key: string, record: string): Result<0 | 1, Context>
  }
}

// An owner is recognised by the text `"token":"…"`. Only a mark holds it: within the JSON string of
// a finished answer the quotes would be escaped. Whoever waits for a key listens to the channel of
// its name.

const COMPLETE = `
local held = redis.call('GET', KEYS[1])
if held and not string.find(held, ARGV[1], 1, true) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('PUBLISH', KEYS[1], 'completed')
return 1`

const ABANDON = `
local held = redis.call('GET', KEYS[1])
if not held or not string.find(held, ARGV[1], 1, true) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', KEYS[1], 'abandoned')
return 1`

const RENEW = `
local held = redis.call('GET', KEYS[1])
if not held or not string.find(held, ARGV[1], 1, true) then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])`

const DISCARD = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])`

/**
 * Keeps each record as a JSON string under `idemp:<key>`, in Redis 7 or later, where `SET` takes
 * `NX` and `GET` together. Whoever waits for a key is told by pub/sub, on one connection more that
 * is opened when it is first needed and closed with the given one.
 *
 * @param options `leaseMs`: how long a claim lasts; `ttlMs`: how long an answer is remembered
 */
export function createRedisStore(
  redis: Redis,
  options: { leaseMs: number; ttlMs: number; report?: ReportCorruptRecord },
): IdempotencyStore {
  const { leaseMs, ttlMs, report } = options
  redis.defineCommand('completeRecord', { numberOfKeys: 1, lua: COMPLETE })
  redis.defineCommand('abandonRecord', { numberOfKeys: 1, lua: ABANDON })
  redis.defineCommand('renewRecord', { numberOfKeys: 1, lua: RENEW })
  redis.defineCommand('discardRecord', { numberOfKeys: 1, lua: DISCARD })
  const watcher = createRedisWatcher(redis)

  async function claim(key: string, fingerprint: string, token: string): Promise<Claim> {
    const mark = writeInFlight(fingerprint, token)
    const held = await redis.set(nameOf(key), mark, 'PX', leaseMs, 'NX', 'GET')
    if (held === null) return { state: 'new' }
    const record = readRecord(key, held, report)
    if (record === undefined) {
      await redis.discardRecord(nameOf(key), held)
      return claim(key, fingerprint, token)
    }
    if (record.state === 'in_flight' && record.token === token) {
      const renewed = await redis.renewRecord(nameOf(key), ownerOf(token), leaseMs)
      return renewed === 1 ? { state: 'new' } : claim(key, fingerprint, token)
    }
    if (record.payload_hash !== fingerprint) return { state: 'mismatch' }
    if (record.state === 'in_flight') return { state: 'in_flight' }
    return { state: 'completed', answer: answerIn(record) }
  }

  return {
    leaseMs,
    claim,

    async complete(key, token, request) {
      await redis.completeRecord(nameOf(key), ownerOf(token), writeCompleted(request), ttlMs)
    },

    async abandon(key, token) {
      await redis.abandonRecord(nameOf(key), ownerOf(token))
    },

    watch: (key, onChange) => watcher.watch(nameOf(key), onChange),
  }
}

const nameOf = (key: string) => `idemp:${key}`
const ownerOf = (token: string) => `"token":${JSON.stringify(token)}`
