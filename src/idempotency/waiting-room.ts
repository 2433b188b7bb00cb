import type { IdempotencyStore } from './store.ts'

/** How often a key is looked at while its store cannot tell of changes. */
const POLL_MS = 500

/** Each holds a connection and some kilobytes. */
const DEFAULT_MAX_WAITERS = 1_000

/** One request that waits for the one ahead of it. */
export interface Waiter {
  /**
   * Waits until the key may have changed since the last call, or since the waiter was admitted.
   *
   * @returns false if the wait has ended: its time is up, its client gone, or the room closed
   */
  changed(): Promise<boolean>
  /** Ends the wait; whoever is in `changed` is told so. */
  end(): void
  /** Gives the place free. */
  leave(): void
}

/**
 * Where duplicates wait for the first request under their key. Bounded, so that a flood of duplicates
 * cannot fill the process.
 */
export class WaitingRoom {
  readonly #store: IdempotencyStore
  readonly #maxWaiters: number
  readonly #waiters = new Set<Waiter>()
  #closed = false

  constructor(store: IdempotencyStore, maxWaiters = DEFAULT_MAX_WAITERS) {
    this.#store = store
    this.#maxWaiters = maxWaiters
  }

  /** How many wait now. */
  get size(): number {
    return this.#waiters.size
  }

  /**
   * Admits a request for at most `ms`.
   *
   * @returns its waiter, once no change of the key is missed any more; undefined if the room is full
   * or closed
   */
  async enter(key: string, ms: number): Promise<Waiter | undefined> {
    if (this.#closed || this.#waiters.size >= this.#maxWaiters) return undefined
    let hasChanged = false
    let hasEnded = false
    let wake = () => {}
    const woken = () =>
      new Promise<void>((resolve) => {
        wake = resolve
      })
    const watching = this.#watch(key, () => {
      hasChanged = true
      wake()
    })
    const timer = setTimeout(() => waiter.end(), ms)
    const waiter: Waiter = {
      changed: async () => {
        if (!hasChanged && !hasEnded) await woken()
        hasChanged = false
        return !hasEnded
      },
      end: () => {
        hasEnded = true
        wake()
      },
      leave: () => {
        clearTimeout(timer)
        this.#waiters.delete(waiter)
        void watching.then((unwatch) => unwatch())
      },
    }
    this.#waiters.add(waiter)
    await Promise.race([watching, woken()])
    return waiter
  }

  /** Ends all waits and admits nobody any more. */
  close(): void {
    this.#closed = true
    for (const waiter of this.#waiters) waiter.end()
  }

  async #watch(key: string, onChange: () => void): Promise<() => void> {
    try {
      if (this.#store.watch) return await this.#store.watch(key, onChange)
    } catch {
      // It cannot tell now; poll.
    }
    const poll = setInterval(onChange, POLL_MS)
    return () => clearInterval(poll)
  }
}
