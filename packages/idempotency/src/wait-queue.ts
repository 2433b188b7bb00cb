/** Duplicates that wait for the first request under their key. */
import type { IdempotencyStore } from './stores/store.ts'

/** How often a key is looked up while its store cannot notify of changes. */
const POLL_INTERVAL_MS = 500

/** One duplicate that waits. */
export interface Waiter {
  /**
   * Waits until the key may have changed since the last call, or since the waiter was added.
   *
   * @returns false if the wait has ended: by its time limit, by `end` or because the queue was closed
   */
  waitForChange(): Promise<boolean>
  /** Ends the wait: `waitForChange` returns false. */
  end(): void
  /** Frees the waiter's place. */
  remove(): void
}

/** A bounded set of waiters, so that a flood of duplicates cannot fill the process. */
export class WaitQueue {
  readonly #store: IdempotencyStore
  readonly #maxWaiters: number
  readonly #onChange: (count: number) => void
  readonly #waiters = new Set<Waiter>()
  #isClosed = false

  /** @param onChange called with the number of waiters whenever it changes */
  constructor(
    store: IdempotencyStore,
    maxWaiters: number,
    onChange: (count: number) => void = () => {},
  ) {
    this.#store = store
    this.#maxWaiters = maxWaiters
    this.#onChange = onChange
  }

  /**
   * Adds a waiter for at most `ms`.
   *
   * @returns the waiter, once no change of the key can be missed; undefined if the queue is full or
   * closed
   */
  async add(key: string, ms: number): Promise<Waiter | undefined> {
    if (this.#isClosed || this.#waiters.size >= this.#maxWaiters) return undefined
    let hasChanged = false
    let hasEnded = false
    let notify = () => {}
    const untilNotified = () =>
      new Promise<void>((resolve) => {
        notify = resolve
      })
    const watching = this.#watch(key, () => {
      hasChanged = true
      notify()
    })
    const timer = setTimeout(() => waiter.end(), ms)
    const waiter: Waiter = {
      waitForChange: async () => {
        if (!hasChanged && !hasEnded) await untilNotified()
        hasChanged = false
        return !hasEnded
      },
      end: () => {
        hasEnded = true
        notify()
      },
      remove: () => {
        clearTimeout(timer)
        this.#waiters.delete(waiter)
        this.#onChange(this.#waiters.size)
        void watching.then((stopWatching) => stopWatching())
      },
    }
    this.#waiters.add(waiter)
    this.#onChange(this.#waiters.size)
    await Promise.race([watching, untilNotified()])
    return waiter
  }

  /** Ends all waits and refuses new ones. */
  close(): void {
    this.#isClosed = true
    for (const waiter of this.#waiters) waiter.end()
  }

  async #watch(key: string, onChange: () => void): Promise<() => void> {
    try {
      if (this.#store.watch) return await this.#store.watch(key, onChange)
    } catch {
      // The store cannot notify now: poll.
    }
    const poll = setInterval(onChange, POLL_INTERVAL_MS)
    return () => clearInterval(poll)
  }
}
