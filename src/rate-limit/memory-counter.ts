/** Counts in the memory of this process. */
import { LRUCache } from 'lru-cache'
import type { IncrementCounter, WindowCount } from './counter-store.ts'

/** About 2 MB, and more clients than one machine sees in a window; beyond it the oldest count is dropped. */
const MAX_CLIENTS = 10_000

/** Creates a counter in fixed windows of `windowMs`. */
export function createMemoryCounter(windowMs: number): (name: string) => WindowCount {
  const counts = new LRUCache<string, { count: number }>({ max: MAX_CLIENTS, ttl: windowMs })
  return (name) => {
    const entry = counts.get(name) ?? { count: 0 }
    if (++entry.count === 1) counts.set(name, entry) // a window begins with its first request
    return { count: entry.count, ttlMs: counts.getRemainingTTL(name) }
  }
}

/** Counts with `primary`, and in memory while that fails. */
export function fallBackToMemory(primary: IncrementCounter, windowMs: number): IncrementCounter {
  const countInMemory = createMemoryCounter(windowMs)
  return async (name, max) => {
    try {
      return await primary(name, max)
    } catch {
      return countInMemory(name)
    }
  }
}
