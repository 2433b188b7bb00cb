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
 * The part of a limit that is counted in advance; none of one below 1000. By what other processes have
 * in reserve a client is refused too early, at most by so much each, but never too late.
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
    return window && remainsOf(window) > 0 ? window : undefined
  }

  /** Counts a hit that Redis need not be asked for. */
  function countHere(client: string): Hits | undefined {
    const window = windowOf(client)
    if (window === undefined) return undefined
    if (window.reserve > 0) return take(window)
    return window.total > max ? { current: max + 1, ttl: remainsOf(window) } : undefined
  }

  async function countAll(clients: string[]): Promise<Hits[]> {
    const counts = new Map<string, number>()
    for (const client of clients) counts.set(client, (counts.get(client) ?? 0) + 1)
    const names = Array.from(counts.keys(), (client) => `ratelimit:${client}`)
    const added = Array.from(counts, ([client, count]) => {
      // A call that was on its way may have brought a reserve.
      return count + (windowOf(client)?.reserve ? 0 : portion)
    })
    const counted = await redis.countHits(names.length, ...names, windowMs, ...added)
    const current = new Map(
      Array.from(counts.keys(), (client, i) => [
        client,
        note(client, added[i] as number, counted[2 * i] as number, counted[2 * i + 1] as number),
      ]),
    )
    return clients.map((client) => take(current.get(client) as Window))
  }

  /** Keeps what was counted: `added` hits of a `total` that ends in `ttl` ms. */
  function note(client: string, added: number, total: number, ttl: number): Window {
    const known = windowOf(client)
    const isSame = known !== undefined && known.total < total
    const window = {
      total,
      reserve: added + (isSame ? known.reserve : 0),
      endsAt: performance.now() + Math.max(1, ttl),
    }
    windows.set(client, window)
    return window
  }

  return (client) => countHere(client) ?? hits.add(client)
}

/** A hit that was counted before. */
function take(window: Window): Hits {
  window.reserve--
  return { current: window.total - window.reserve, ttl: remainsOf(window) }
}

/** @returns ms */
const remainsOf = ({ endsAt }: Window) => endsAt - performance.now()
