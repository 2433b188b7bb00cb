/** The counters of @fastify/rate-limit: one store for all its limits. */
import type { FastifyRateLimitStore, FastifyRateLimitStoreCtor } from '@fastify/rate-limit'

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

/**
 * Creates the class that the package constructs. (Its own store in memory gives all requests of one
 * turn of the event loop the last count: none of fifteen would pass a limit of ten.)
 */
export function createCounterStore(increment: IncrementCounter): FastifyRateLimitStoreCtor {
  return class CounterStore implements FastifyRateLimitStore {
    incr(
      name: string,
      callback: Parameters<FastifyRateLimitStore['incr']>[1],
      _windowMs: number,
      max: number,
    ): void {
      const succeed = ({ count, ttlMs }: WindowCount) =>
        callback(null, { current: count, ttl: ttlMs })
      const window = increment(name, max)
      if (window instanceof Promise) window.then(succeed, callback)
      else succeed(window)
    }

    /** The package asks for one store a limit; the counters of all limits have different names. */
    child(): CounterStore {
      return this
    }
  }
}
