/** Repeats what the store has failed to do. */

/** A lost connection to the store is often back at once. */
const FIRST_DELAY_MS = 50

/** A store that is back must get what is missing soon; more often would load it while it starts. */
const MAX_DELAY_MS = 1_000

/** Calls with growing delays, all of which end together. */
export class BackOff {
  readonly #timers = new Map<NodeJS.Timeout, () => void>()
  #hasEnded = false

  /**
   * Repeats a call after 50 ms, 100 ms and so on, at most 1 s, until it does not fail or `ms` have passed.
   *
   * @returns its result; undefined if it has failed each time
   */
  async repeat<Result>(call: () => Promise<Result>, ms: number): Promise<Result | undefined> {
    const timeoutAt = performance.now() + ms
    for (let delayMs = FIRST_DELAY_MS; ; delayMs = Math.min(2 * delayMs, MAX_DELAY_MS)) {
      await this.#sleep(delayMs)
      if (this.#hasEnded || performance.now() >= timeoutAt) return undefined
      try {
        return await call()
      } catch {
        // The first failure, before the repetitions, was reported.
      }
    }
  }

  /** Ends all repetitions. */
  end(): void {
    this.#hasEnded = true
    for (const [timer, wakeUp] of this.#timers) {
      clearTimeout(timer)
      wakeUp()
    }
  }

  #sleep(ms: number): Promise<void> {
    if (this.#hasEnded) return Promise.resolve()
    return new Promise((resolve) => {
      const timer = setTimeout(wakeUp, ms).unref()
      const timers = this.#timers
      function wakeUp() {
        timers.delete(timer)
        resolve()
      }
      timers.set(timer, wakeUp)
    })
  }
}
