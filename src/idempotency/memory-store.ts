import { AnswerCache } from './answer-cache.ts'
import type { Claim, IdempotencyStore } from './store.ts'

/** Some minutes of answers on one instance, a few hundred bytes each. */
const DEFAULT_MAX_ENTRIES = 100_000
const DEFAULT_MAX_BYTES = 64 * 1024 * 1024

/** Expired entries are unreachable at once; this is how long they may still take up memory. */
const SWEEP_MS = 30_000

interface Mark {
  fingerprint: string
  token: string
  expiresAt: number
}

/**
 * Keeps the records in this process: for one instance, in development and in tests. It is bounded:
 * beyond its size the answers used longest ago are forgotten, and a claim more is refused.
 *
 * @param options `leaseMs`: how long a claim lasts; `ttlMs`: how long an answer is remembered;
 * `maxEntries`: of claims, and of answers; `maxBytes`: of all answers, about; `now`: a clock in ms
 * that never goes back
 */
export function createMemoryStore(options: {
  leaseMs: number
  ttlMs: number
  maxEntries?: number
  maxBytes?: number
  now?: () => number
}): IdempotencyStore {
  const { leaseMs, ttlMs, now = () => performance.now() } = options
  const { maxEntries = DEFAULT_MAX_ENTRIES, maxBytes = DEFAULT_MAX_BYTES } = options
  const marks = new Map<string, Mark>()
  const answers = new AnswerCache({ maxEntries, maxBytes, now })
  const watchers = new Map<string, Set<() => void>>()
  let sweep: NodeJS.Timeout | undefined

  /** The mark under the key, unless its lease has run out. */
  function markOf(key: string): Mark | undefined {
    const mark = marks.get(key)
    if (mark === undefined || mark.expiresAt > now()) return mark
    marks.delete(key)
    return undefined
  }

  /** Runs only while there is something to forget, so that a store nobody uses can be collected. */
  function scheduleSweep(): void {
    if (sweep) return
    sweep = setTimeout(() => {
      sweep = undefined
      for (const key of marks.keys()) markOf(key)
      answers.sweep()
      if (answers.size + marks.size > 0) scheduleSweep()
    }, SWEEP_MS).unref()
  }

  function settle(key: string): void {
    marks.delete(key)
    for (const onChange of watchers.get(key) ?? []) onChange()
  }

  return {
    leaseMs,

    async claim(key, fingerprint, token): Promise<Claim> {
      const answered = answers.get(key)
      if (answered) {
        if (answered.fingerprint !== fingerprint) return { state: 'mismatch', isAnswered: true }
        return { state: 'completed', answer: answered.answer }
      }
      const mark = markOf(key)
      if (mark && mark.token !== token) {
        if (mark.fingerprint !== fingerprint) return { state: 'mismatch', isAnswered: false }
        return { state: 'in_flight' }
      }
      if (!mark && marks.size >= maxEntries) throw new Error('too many keys are claimed at once')
      marks.set(key, { fingerprint, token, expiresAt: now() + leaseMs })
      scheduleSweep()
      return { state: 'new' }
    },

    async complete(key, token, request) {
      const mark = markOf(key)
      if ((mark && mark.token !== token) || answers.get(key)) return
      answers.set(key, request, ttlMs)
      scheduleSweep()
      settle(key)
    },

    async abandon(key, token) {
      if (markOf(key)?.token === token) settle(key)
    },

    async watch(key, onChange) {
      const listeners = watchers.get(key) ?? new Set()
      watchers.set(key, listeners.add(onChange))
      return () => {
        listeners.delete(onChange)
        if (listeners.size === 0 && watchers.get(key) === listeners) watchers.delete(key)
      }
    },
  }
}
