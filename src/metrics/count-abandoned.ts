import type { IdempotencyStore } from '../idempotency/store.ts'

/** The store; calls `count` whenever a key is given back. */
export function countAbandoned(store: IdempotencyStore, count: () => void): IdempotencyStore {
  return {
    ...store,
    abandon(key, token) {
      count()
      return store.abandon(key, token)
    },
  }
}
