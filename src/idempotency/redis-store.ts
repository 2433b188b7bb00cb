import type { Redis, Result } from 'ioredis'
import { Batcher, Lane } from '../batcher.ts'
import { answerIn, readRecord, writeCompleted, writeInFlight } from './record.ts'
import { createRedisWatcher } from './redis-watcher.ts'
import type { Claim, IdempotencyStore, ReportCorruptRecord } from './store.ts'

declare module 'ioredis' {
  interface RedisCommander<Context> {
    claimRecords(...args: (string | number)[]): Result<(string | number | null | Error)[], Context>
    completeRecords(...args: (string | number)[]): Result<null, Context>
    abandonRecord(key: string, owner: string): Result<0 | 1, Context>
    renewRecord(key: string, owner: string, leaseMs: number): Result<0 | 1, Context>
    discardRecord(key: string, record: string): Result<0 | 1, Context>
  }
}

// An owner is recognised by the text `"token":"…"`. Only a mark holds it: within the JSON string of
// a finished answer the quotes would be escaped. Whoever waits for a key listens to the channel of
// its name.

/** For each key: what was there, or nil, and for how long yet in ms; or why this key cannot be asked. */
const CLAIM_ALL = `
local found = {}
for i, key in ipairs(KEYS) do
  local held = redis.pcall('SET', key, ARGV[i + 1], 'NX', 'GET', 'PX', ARGV[1])
  found[2 * i - 1] = held
  found[2 * i] = held and not held.err and redis.call('PTTL', key) or 0
end
return found`

const COMPLETE_ALL = `
for i, key in ipairs(KEYS) do
  local held = redis.pcall('GET', key)
  if not held or not held.err and string.find(held, ARGV[2 * i], 1, true) then
    redis.call('SET', key, ARGV[2 * i + 1], 'PX', ARGV[1])
    redis.call('PUBLISH', key, 'completed')
  end
end`

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

/** Redis serves nobody else meanwhile: at some microseconds a key, for less than two milliseconds. */
const MAX_KEYS_A_CALL = 256

/** What a claim met in Redis. */
interface Held {
  text: string
  remainsMs: number
}

/**
 * Keeps each record as a JSON string under `idemp:<key>`, in Redis 7 or later, where `SET` takes
 * `NX` and `GET` together. Whoever waits for a key is told by pub/sub, on one connection more that
 * is opened when it is first needed and closed with the given one. The claims of one turn of the event
 * loop go to Redis in one call, and so do its answers: a call costs this process more than a key.
 *
 * @param options `leaseMs`: how long a claim lasts; `ttlMs`: how long an answer is remembered; `ask`:
 * makes each call, or refuses it; `lane`: of the calls to this Redis, which others may share
 */
export function createRedisStore(
  redis: Redis,
  options: {
    leaseMs: number
    ttlMs: number
    report?: ReportCorruptRecord
    ask?: <T>(call: () => Promise<T>) => Promise<T>
    lane?: Lane
  },
): IdempotencyStore {
  const { leaseMs, ttlMs, report, ask = (call) => call(), lane = new Lane(1) } = options
  redis.defineCommand('claimRecords', { lua: CLAIM_ALL })
  redis.defineCommand('completeRecords', { lua: COMPLETE_ALL })
  redis.defineCommand('abandonRecord', { numberOfKeys: 1, lua: ABANDON })
  redis.defineCommand('renewRecord', { numberOfKeys: 1, lua: RENEW })
  redis.defineCommand('discardRecord', { numberOfKeys: 1, lua: DISCARD })
  const watcher = createRedisWatcher(redis)

  const claims = new Batcher<{ name: string; mark: string }, Held | undefined>({
    maxItems: MAX_KEYS_A_CALL,
    lane,
    send: (batch) =>
      ask(async () => {
        const names = batch.map(({ name }) => name)
        const marks = batch.map(({ mark }) => mark)
        const found = await redis.claimRecords(names.length, ...names, leaseMs, ...marks)
        // A full Redis, say: that is not for the sake of a key.
        if (names.every((_, i) => found[2 * i] instanceof Error)) throw found[0]
        return names.map((_, i) => heldIn(found[2 * i], found[2 * i + 1]))
      }),
  })

  const completions = new Batcher<{ name: string; owner: string; record: string }, void>({
    maxItems: MAX_KEYS_A_CALL,
    lane,
    send: (batch) =>
      ask(async () => {
        const names = batch.map(({ name }) => name)
        const writes = batch.flatMap(({ owner, record }) => [owner, record])
        await redis.completeRecords(names.length, ...names, ttlMs, ...writes)
        return []
      }),
  })

  async function claim(key: string, fingerprint: string, token: string): Promise<Claim> {
    const held = await claims.add({ name: nameOf(key), mark: writeInFlight(fingerprint, token) })
    if (held === undefined) return { state: 'new' }
    const record = readRecord(key, held.text, report)
    if (record === undefined) {
      await ask(() => redis.discardRecord(nameOf(key), held.text))
      return claim(key, fingerprint, token)
    }
    if (record.state === 'in_flight' && record.token === token) {
      const renewed = await ask(() => redis.renewRecord(nameOf(key), ownerOf(token), leaseMs))
      return renewed === 1 ? { state: 'new' } : claim(key, fingerprint, token)
    }
    if (record.payload_hash !== fingerprint) {
      return { state: 'mismatch', isAnswered: record.state === 'completed' }
    }
    if (record.state === 'in_flight') return { state: 'in_flight' }
    return { state: 'completed', answer: answerIn(record), remainsMs: held.remainsMs }
  }

  return {
    leaseMs,
    claim,

    complete: (key, token, request) =>
      completions.add({
        name: nameOf(key),
        owner: ownerOf(token),
        record: writeCompleted(request),
      }),

    async abandon(key, token) {
      await ask(() => redis.abandonRecord(nameOf(key), ownerOf(token)))
    },

    watch: (key, onChange) => watcher.watch(nameOf(key), onChange),
  }
}

/** @returns a rejection, if this key cannot be claimed for a reason of its own */
function heldIn(text: unknown, remainsMs: unknown): Held | undefined | Promise<never> {
  if (text === null) return undefined
  if (typeof text !== 'string') return Promise.reject(text)
  return { text, remainsMs: Number(remainsMs) }
}

const nameOf = (key: string) => `idemp:${key}`
const ownerOf = (token: string) => `"token":${JSON.stringify(token)}`
