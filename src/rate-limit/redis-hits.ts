import type { Redis, Result } from 'ioredis'
import { LRUCache } from 'lru-cache'
import { Batcher, type Lane } from '../batcher.ts'
import type { CountHit, Hits } from './hits.ts'

declare module 'ioredis' {
  interface RedisCommander<Context> {
    countHits(...args: (string | number)[]): Result<number[], Context>
  }
}

/** For each key: how many hits it has with these, and for how long yet in ms. */
const COUNT_HITS = `
local counted = {}
for i, key in ipairs(KEYS) do
  local hits = redis.call('INCRBY', key, ARGV[i + 1])
  local ttl = redis.call('PTTL', key)
  if ttl < 0 then
    ttl = tonumber(ARGV[1])
    redis.call('PEXPIRE', key, ttl)
  end
  counted[2 * i - 1] = hits
  counted[2 * i] = ttl
end
return counted`

/** Redis serves nobody else meanwhile: at some microseconds a hit, for less than two milliseconds. */
const MAX_HITS_A_CALL = 512

/** About 2 MB; those who are refused most often stay. */
const MAX_REFUSED_CLIENTS = 10_000

/**
 * Counts in Redis, for all instances together, under `ratelimit:<client>`. The hits of one turn of the
 * event loop go to Redis in one call. Whoever is beyond the limit is known here until its window ends,
 * so that a flood costs Redis nothing.
 *
 * @param options `max` hits in a window of `windowMs`; `ask`: makes each call, or refuses it; `lane`:
 * of the calls to this Redis
 */
export function createRedisHits(
  redis: Redis,
  options: {
    max: number
    windowMs: number
    ask: <T>(call: () => Promise<T>) => Promise<T>
    lane: Lane
  },
): CountHit {
  const { max, windowMs, ask, lane } = options
  redis.defineCommand('countHits', { lua: COUNT_HITS })
  const refused = new LRUCache<string, true>({ max: MAX_REFUSED_CLIENTS, ttl: windowMs })
  const hits = new Batcher<string, Hits>({
    maxItems: MAX_HITS_A_CALL,
    lane,
    send: (clients) => ask(() => countAll(clients)),
  })

  async function countAll(clients: string[]): Promise<Hits[]> {
    const counts = new Map<string, number>()
    const places = clients.map((client) => {
      const place = (counts.get(client) ?? 0) + 1
      counts.set(client, place)
      return place
    })
    const names = Array.from(counts.keys(), (client) => `ratelimit:${client}`)
    const counted = await redis.countHits(names.length, ...names, windowMs, ...counts.values())
    const totals = new Map(
      Array.from(counts.keys(), (client, i) => [
        client,
        { hits: counted[2 * i] as number, ttl: counted[2 * i + 1] as number },
      ]),
    )
    return clients.map((client, i) => {
      const { hits, ttl } = totals.get(client) as { hits: number; ttl: number }
      // Of several hits that were counted at once, the first came first.
      const current = hits - (counts.get(client) as number) + (places[i] as number)
      if (current > max) refused.set(client, true, { ttl: Math.max(1, ttl) })
      return { current, ttl }
    })
  }

  return async (client) => {
    const ttl = refused.getRemainingTTL(client)
    return ttl > 0 ? { current: max + 1, ttl } : hits.add(client)
  }
}
