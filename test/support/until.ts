import { setTimeout as sleep } from 'node:timers/promises'

const POLL_MS = 20

type Truthy<T> = Exclude<T, false | 0 | '' | null | undefined>

/**
 * Waits for a condition.
 *
 * @param ms fails after this time: a limit for a broken test, not a measure of speed
 * @returns the condition's first truthy value
 */
export async function until<T>(condition: () => T | Promise<T>, ms = 60_000): Promise<Truthy<T>> {
  const timeoutAt = performance.now() + ms
  for (;;) {
    const value = await condition()
    if (value) return value as Truthy<T>
    if (performance.now() > timeoutAt) throw new Error(`not true after ${ms} ms: ${condition}`)
    await sleep(POLL_MS)
  }
}
