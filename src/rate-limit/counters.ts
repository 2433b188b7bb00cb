/** Counts requests in fixed windows: what a counter is, and counters in the memory of this process. */
import { LRUCache } from 'lru-cache'

/** How many requests a client sent in its window, this one included. */
export interface WindowCount {
  count: number
  /** until the window ends */
  ttlMs: number
}

/**
 * Counts one request.
 *
 * @param name of the counter
 * @param max above which the count need not be exact
 */
export type IncrementCounter = (name: string, max: number) => WindowCount | Promise<WindowCount>

/** About 2 MB, and more clients than one machine sees in a window; then the oldest count is dropped. */
const MAX_COUNTERS = 10_000

/** Creates counters in memory, in windows of `windowMs`. */
export function createMemoryCounters(windowMs: number): (name: string) => WindowCount {
  const counts = new LRUCache<string, { count: number }>({ max: MAX_COUNTERS, ttl: windowMs })
  return (name) => {
    const entry = counts.get(name) ?? { count: 0 }
    if (++entry.count === 1) counts.set(name, entry) // a window begins with its first request
    // The cache reads the clock once in a millisecond, so its time may be a little before that of the entry.
    return { count: entry.count, ttlMs: Math.min(counts.getRemainingTTL(name), windowMs) }
  }
}

/** Counts with `primary`, and in memory while that fails. */
export function fallBackToMemory(primary: IncrementCounter, windowMs: number): IncrementCounter {
  const countInMemory = createMemoryCounters(windowMs)
  return async (name, max) => {
    try {
      return await primary(name, max)
    } catch {
      return countInMemory(name)
    }
  }
}
