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

/**
 * The part of a limit that is counted in advance. Whatever other processes then have in reserve, a
 * client is refused no more than so much too early, and never too late. Below 1000 nothing is.
 */
const RESERVED_SHARE = 1 / 1000
/** With that, one hit of a thousand asks Redis; fewer would save nothing. */
const MAX_RESERVE = 1_000

/** About 2 MB; those who come most often stay. */
const MAX_KNOWN_CLIENTS = 10_000

/** What this process knows of a client's window. */
interface Window {
  /** hits that Redis has counted */
  total: number
  /** how many of them have not come yet */
  reserve: number
  /** by `performance.now()` */
  endsAt: number
}

/**
 * Counts in Redis, for all instances together, under `ratelimit:<client>`. The hits of one turn of the
 * event loop go to Redis in one call. Where the limit is large, so do some that are still to come: the
 * next ones need not ask. Whoever is beyond the limit is known here until its window ends, so that a
 * flood costs Redis nothing.
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
  const portion = Math.min(Math.floor(max * RESERVED_SHARE), MAX_RESERVE)
  const windows = new LRUCache<string, Window>({ max: MAX_KNOWN_CLIENTS })
  const hits = new Batcher<string, Hits>({
    maxItems: MAX_HITS_A_CALL,
    lane,
    send: (clients) => ask(() => countAll(clients)),
  })

  /** The window that is known of a client, unless it has ended. */
  function windowOf(client: string): Window | undefined {
    const window = windows.get(client)
    return window && window.endsAt > performance.now() ? window : undefined
  }

  /** Counts a hit that Redis need not be asked for. */
  function countHere(client: string): Hits | undefined {
    const window = windowOf(client)
    if (window === undefined) return undefined
    const ttl = window.endsAt - performance.now()
    if (window.reserve > 0) return { current: window.total - --window.reserve, ttl }
    return window.total > max ? { current: max + 1, ttl } : undefined
  }

  async function countAll(clients: string[]): Promise<Hits[]> {
    const counts = new Map<string, { hits: number; reserve: number }>()
    const places = clients.map((client) => {
      let count = counts.get(client)
      if (count === undefined) {
        // An earlier call may have brought a reserve meanwhile.
        count = { hits: 0, reserve: windowOf(client)?.reserve ? 0 : portion }
        counts.set(client, count)
      }
      return ++count.hits
    })
    const names = Array.from(counts.keys(), (client) => `ratelimit:${client}`)
    const increments = Array.from(counts.values(), ({ hits, reserve }) => hits + reserve)
    const counted = await redis.countHits(names.length, ...names, windowMs, ...increments)
    const before = new Map<string, { hits: number; ttl: number }>()
    for (const [i, client] of [...counts.keys()].entries()) {
      const [total, ttl] = [counted[2 * i] as number, counted[2 * i + 1] as number]
      note(client, total, ttl, counts.get(client)?.reserve as number)
      before.set(client, { hits: total - (increments[i] as number), ttl })
    }
    return clients.map((client, i) => {
      const { hits, ttl } = before.get(client) as { hits: number; ttl: number }
      // Of several hits that were counted at once, the first came first.
      return { current: hits + (places[i] as number), ttl }
    })
  }

  /** Keeps what was counted, if it spares a later hit the question. */
  function note(client: string, total: number, ttl: number, reserved: number): void {
    const known = windowOf(client)
    const isSameWindow = known !== undefined && known.total < total
    const reserve = reserved + (isSameWindow ? known.reserve : 0)
    if (reserve === 0 && total <= max) return
    windows.set(client, { total, reserve, endsAt: performance.now() + Math.max(1, ttl) })
  }

  return (client) => countHere(client) ?? hits.add(client)
}
