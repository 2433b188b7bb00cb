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
   * Repeats a call after 50 ms, 100 ms and so on, at most 1 s, until it returns true or `ms` have passed.
   *
   * @returns whether it has returned true
   * @throws what the call throws
   */
  async repeat(call: () => Promise<boolean>, ms: number): Promise<boolean> {
    const timeoutAt = performance.now() + ms
    for (let delayMs = FIRST_DELAY_MS; ; delayMs = Math.min(2 * delayMs, MAX_DELAY_MS)) {
      await this.#sleep(delayMs)
      if (this.#hasEnded || performance.now() >= timeoutAt) return false
      if (await call()) return true
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
