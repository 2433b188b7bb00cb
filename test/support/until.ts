import { setTimeout as pause } from 'node:timers/promises'

const POLL_MS = 20

/**
 * Waits for a condition.
 *
 * @param ms fails after this time: a bound for a broken test, not a measure of speed
 * @returns the condition's first truthy value
 */
export async function until<T>(condition: () => T | Promise<T>, ms = 15_000): Promise<T> {
  const giveUpAt = performance.now() + ms
  for (;;) {
    const value = await condition()
    if (value) return value
    if (performance.now() > giveUpAt) throw new Error(`not true after ${ms} ms: ${condition}`)
    await pause(POLL_MS)
  }
}
