import type { IdempotencyStore } from './store.ts'

/** The store, each of whose calls goes through `guard`, which may refuse it. */
export function guardStore(
  store: IdempotencyStore,
  guard: <T>(call: () => Promise<T>) => Promise<T>,
): IdempotencyStore {
  return {
    ...store,
    claim: (...args) => guard(() => store.claim(...args)),
    complete: (...args) => guard(() => store.complete(...args)),
    abandon: (...args) => guard(() => store.abandon(...args)),
  }
}
