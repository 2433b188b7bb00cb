/** A store in Redis: each record is a JSON string under `idemp:<key>`. */
import { ConcurrencyLimit } from '../batcher.ts'
import type { RedisConnection } from '../redis-client.ts'
import { createScriptBatcher, defineKeyScript, type RunCall } from '../script-batcher.ts'
import { createRecordFormat, type RecordOptions, readResponse } from './record.ts'
import { createRedisWatcher } from './redis-watcher.ts'
import { cacheRepeats } from './response-cache.ts'
import type { Claim, IdempotencyStore } from './store.ts'

// Each change is published to the channel that has the name of the key, for waiting duplicates. By pcall:
// without the right to the channel they poll, and the call itself must not fail.

/**
 * For each key: the record that was there, or nil, and its remaining time in ms; or an error. `ARGV`: the lease in
 * ms, then the record of each key.
 */
const CLAIM = `
local replies = {}
for i, key in ipairs(KEYS) do
  local found = redis.pcall('GET', key)
  if not found then found = redis.pcall('SET', key, ARGV[i + 1], 'PX', ARGV[1]) end
  local is_record = type(found) == 'string'
  replies[2 * i - 1] = (is_record or found.err) and found or false
  replies[2 * i] = is_record and redis.call('PTTL', key) or 0
end
return replies`

/** Whether the text is a claim with this token. Defined in front of the scripts that use it. */
const IS_OWNER = `
local function is_owner(text, token)
  local is_json, record = pcall(cjson.decode, text)
  return is_json and type(record) == 'table' and record.state == 'in_flight' and record.token == token
end`

/**
 * For each key: 1 if the response was stored, 0 if the key belongs to another run; or an error. `ARGV`: the time to
 * live in ms, then the token and the record of each key.
 */
const COMPLETE = `${IS_OWNER}
local replies = {}
local ttl = ARGV[1]
for i, key in ipairs(KEYS) do
  local token, record = ARGV[2 * i], ARGV[2 * i + 1]
  local found = redis.pcall('GET', key)
  if found and (found.err or not is_owner(found, token)) then
    replies[i] = found.err and found or 0
  else
    local stored = redis.pcall('SET', key, record, 'PX', ttl)
    if not stored.err then redis.pcall('PUBLISH', key, 'completed') end
    replies[i] = stored.err and stored or 1
  end
end
return replies`

/** Claims a key that is free, extends a claim of the same token. Returns 0 for any other record. */
const RENEW = `${IS_OWNER}
local found = redis.call('GET', KEYS[1])
if found and not is_owner(found, ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1`

/** Deletes a claim of this token. Returns 0 for any other record. */
const RELEASE = `${IS_OWNER}
local found = redis.call('GET', KEYS[1])
if not found or not is_owner(found, ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', KEYS[1], 'released')
return 1`

/** Deletes the record with these bytes. */
const DELETE_UNCHANGED = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])`

/** The record can be replaced between two calls once or twice; more often means a fault. */
const MAX_ATTEMPTS = 5

/** Redis serves nothing else during a script: at some µs a key, less than two ms. */
const MAX_KEYS_PER_CALL = 256

/** A claim to send. */
interface ClaimCall {
  name: string
  record: string
  /** by `performance.now()`; undefined: at any time */
  sendUntil: number | undefined
}

/** The record that a claim found. */
interface Found {
  text: string
  remainingMs: number
}

/**
 * Creates a store in Redis. Waiting duplicates are notified by pub/sub, on one more connection, which
 * is opened when it is first needed and closed with the given one. The claims of one turn of the event
 * loop go to Redis in one call, and so do the responses.
 *
 * @param options `leaseMs`: how long a claim lasts; `ttlMs`: how long a response is kept; `runCall`: runs
 * each call, or refuses it; `limit`: of the calls to this Redis, which other batchers may share
 */
export function createRedisStore(
  redis: RedisConnection,
  options: RecordOptions & {
    leaseMs: number
    ttlMs: number
    runCall?: RunCall
    limit?: ConcurrencyLimit
  },
): IdempotencyStore {
  const { leaseMs, ttlMs } = options
  const records = createRecordFormat(options)
  const { runCall = (call) => call(), limit = new ConcurrencyLimit(1) } = options
  const batching = { maxKeys: MAX_KEYS_PER_CALL, limit, runCall }
  const renewKey = defineKeyScript(redis, 'renewRecord', RENEW)
  const releaseKey = defineKeyScript(redis, 'releaseRecord', RELEASE)
  const deleteUnchanged = defineKeyScript(redis, 'deleteUnchangedRecord', DELETE_UNCHANGED)
  const watcher = createRedisWatcher(redis)

  const claimKey = createScriptBatcher<ClaimCall, Found | undefined>(redis, {
    ...batching,
    name: 'claimRecords',
    lua: CLAIM,
    repliesPerKey: 2,
    sharedArguments: [leaseMs],
    isNeeded: ({ sendUntil }) => sendUntil === undefined || performance.now() < sendUntil,
    getKey: ({ name }) => name,
    getArguments: ({ record }) => [record],
    parseReplies: ([text, remainingMs]) => {
      if (text === null) return undefined
      if (typeof text !== 'string') return Promise.reject(text)
      return { text, remainingMs: Number(remainingMs) }
    },
  })

  const completeKey = createScriptBatcher<{ name: string; token: string; record: string }, void>(
    redis,
    {
      ...batching,
      name: 'completeRecords',
      lua: COMPLETE,
      repliesPerKey: 1,
      sharedArguments: [ttlMs],
      getKey: ({ name }) => name,
      getArguments: ({ token, record }) => [token, record],
      parseReplies: ([reply]) => (reply instanceof Error ? Promise.reject(reply) : undefined),
    },
  )

  async function claim(
    key: string,
    fingerprint: string,
    token: string,
    sendUntil?: number,
  ): Promise<Claim> {
    const name = getRecordName(key)
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const record = records.formatClaim(fingerprint, token)
      const found = await claimKey({ name, record, sendUntil })
      if (found === undefined) return { state: 'new' }
      const existing = records.parse(key, found.text)
      if (existing === undefined) {
        await deleteCorrupt(name, found.text)
        continue
      }
      if (existing.state === 'in_flight' && existing.token === token) {
        if (await renew(key, fingerprint, token)) return { state: 'new' }
        continue
      }
      if (existing.payload_hash !== fingerprint) {
        return { state: 'mismatch', isCompleted: existing.state === 'completed' }
      }
      const { remainingMs } = found
      if (existing.state === 'in_flight') return { state: 'in_flight', remainingMs }
      return { state: 'completed', response: readResponse(existing), remainingMs }
    }
    throw new Error(`the key could not be claimed in ${MAX_ATTEMPTS} attempts`)
  }

  /** Deletes a record, unless it has changed. Compares bytes: they may be no text at all. */
  async function deleteCorrupt(name: string, text: string): Promise<void> {
    const bytes = await runCall(() => redis.getBuffer(name))
    if (bytes?.toString() === text) await runCall(() => deleteUnchanged(name, bytes))
  }

  async function renew(key: string, fingerprint: string, token: string): Promise<boolean> {
    const record = records.formatClaim(fingerprint, token)
    const renewed = await runCall(() => renewKey(getRecordName(key), token, record, leaseMs))
    return renewed === 1
  }

  return {
    leaseMs,
    ttlMs,
    replayedHeaders: records.replayedHeaders,
    claim: cacheRepeats(claim),
    renew,

    complete: (key, token, request) =>
      completeKey({ name: getRecordName(key), token, record: records.formatCompleted(request) }),

    async release(key, token) {
      await runCall(() => releaseKey(getRecordName(key), token))
    },

    watch: (key, onChange) => watcher.watch(getRecordName(key), onChange),
  }
}

/** The name of the record of a key in Redis. */
export const getRecordName = (key: string) => `idemp:${key}`
