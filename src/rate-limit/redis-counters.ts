/** Counts in Redis, for all processes together, under `order-once:rate-limit:<name of the counter>`. */
import {
  type ConcurrencyLimit,
  createScriptBatcher,
  type RedisClient,
  type RunCall,
  withDeadline,
} from '@order-once/idempotency/batching'
import { LRUCache } from 'lru-cache'
import { REDIS_COMMAND_TIMEOUT_MS } from '../limits.ts'
import type { IncrementCounter, WindowCount } from './counters.ts'

/** For each key: its count with this request, and how long its window lasts, in ms. */
const INCREMENT = `
local replies = {}
for i, key in ipairs(KEYS) do
  local count = redis.call('INCR', key)
  local ttl = redis.call('PTTL', key)
  if ttl < 0 then
    ttl = tonumber(ARGV[1])
    redis.call('PEXPIRE', key, ttl)
  end
  replies[2 * i - 1] = count
  replies[2 * i] = ttl
end
return replies`

/** Redis serves nothing else during a script: at some µs a key, less than two ms. */
const MAX_KEYS_PER_CALL = 512

/** About 2 MB; those that were used last stay. */
const MAX_EXCEEDED_CLIENTS = 10_000

/**
 * Creates counters in fixed windows. The requests of one turn of the event loop go to Redis in one
 * call. A client that has exceeded its limit is remembered here until its window ends, so that a flood
 * costs Redis nothing.
 *
 * @param options `limit`: of the calls to this Redis; `runCall`: runs each call, or refuses it
 * @returns a function that throws if Redis fails, has too much to do, or takes longer than
 * `REDIS_COMMAND_TIMEOUT_MS`
 */
export function createRedisCounters(
  redis: RedisClient,
  options: { windowMs: number; limit: ConcurrencyLimit; runCall: RunCall },
): IncrementCounter {
  const { windowMs, limit, runCall } = options
  /** the last count of each, and when its window ends, by `performance.now()` */
  const exceeded = new LRUCache<string, { count: number; endsAt: number }>({
    max: MAX_EXCEEDED_CLIENTS,
  })

  const increment = createScriptBatcher<string, WindowCount>(redis, {
    name: 'incrementCounters',
    lua: INCREMENT,
    repliesPerKey: 2,
    sharedArguments: [windowMs],
    maxKeys: MAX_KEYS_PER_CALL,
    limit,
    runCall,
    getKey: (name) => `order-once:rate-limit:${name}`,
    parseReplies: ([count, ttlMs]) => ({ count: Number(count), ttlMs: Number(ttlMs) }),
  })

  async function incrementInRedis(name: string, max: number): Promise<WindowCount> {
    const counted = increment(name)
    const window = await withDeadline(counted, REDIS_COMMAND_TIMEOUT_MS, 'Redis did not respond')
    const { count, ttlMs } = window
    if (count > max) exceeded.set(name, { count, endsAt: performance.now() + ttlMs })
    return window
  }

  return (name, max) => {
    const { count, endsAt } = exceeded.get(name) ?? { count: 0, endsAt: 0 }
    const ttlMs = endsAt - performance.now()
    // The limit of a client may have become higher since.
    return count > max && ttlMs > 0 ? { count, ttlMs } : incrementInRedis(name, max)
  }
}
