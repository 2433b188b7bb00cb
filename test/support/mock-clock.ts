/** A clock that a test can advance. */
import { onTestFinished, vi } from 'vitest'

/** @returns a function that advances `performance.now`, in ms, until the end of the test */
export function mockClock(): (ms: number) => void {
  let offset = 0
  const readClock = performance.now.bind(performance)
  const clock = vi.spyOn(performance, 'now').mockImplementation(() => readClock() + offset)
  onTestFinished(() => clock.mockRestore())
  return (ms) => {
    offset += ms
  }
}
