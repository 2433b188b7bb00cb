import { LRUCache } from 'lru-cache'
import type { Hits } from './hits.ts'

/** About 2 MB, and more clients than one machine sees in a window; then the oldest begins anew. */
const MAX_CLIENTS = 10_000

/** Counts in the memory of this process. @returns what counts one request of a client */
export function createMemoryHits({ windowMs }: { windowMs: number }): (client: string) => Hits {
  const counts = new LRUCache<string, { hits: number }>({ max: MAX_CLIENTS, ttl: windowMs })
  return (client) => {
    const count = counts.get(client) ?? { hits: 0 }
    if (++count.hits === 1) counts.set(client, count) // a window begins with its first hit
    return { current: count.hits, ttl: counts.getRemainingTTL(client) }
  }
}
