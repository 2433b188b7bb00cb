import { LRUCache } from 'lru-cache'
import type { Answer, AnsweredRequest, Claim, IdempotencyStore } from './store.ts'

/** Some minutes of answers on one instance, a few hundred bytes each. */
const DEFAULT_MAX_ENTRIES = 100_000
const DEFAULT_MAX_BYTES = 64 * 1024 * 1024

/** What an entry weighs beside its texts: the objects that hold it, measured roughly. */
const ENTRY_OVERHEAD_BYTES = 400

/** Expired entries are unreachable at once; this is how long they may still take up memory. */
const SWEEP_MS = 30_000

interface Mark {
  fingerprint: string
  token: string
  expiresAt: number
}

interface Remembered extends AnsweredRequest {
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
  const answers = new LRUCache<string, Remembered>({
    max: maxEntries,
    maxSize: maxBytes,
    sizeCalculation: ({ fingerprint, answer }, key) => sizeOf(key, fingerprint, answer),
  })
  const watchers = new Map<string, Set<() => void>>()
  let sweep: NodeJS.Timeout | undefined

  /** What is under the key, unless it has expired. */
  function read<T extends { expiresAt: number }>(
    entries: Map<string, T> | LRUCache<string, T>,
    key: string,
  ): T | undefined {
    const entry = entries.get(key)
    if (entry === undefined || entry.expiresAt > now()) return entry
    entries.delete(key)
    return undefined
  }

  /** Runs only while there is something to forget, so that a store nobody uses can be collected. */
  function scheduleSweep(): void {
    if (sweep) return
    sweep = setTimeout(() => {
      sweep = undefined
      for (const key of marks.keys()) read(marks, key)
      for (const [key, { expiresAt }] of answers.entries()) {
        if (expiresAt <= now()) answers.delete(key)
      }
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
      const answered = read(answers, key)
      if (answered) {
        if (answered.fingerprint !== fingerprint) return { state: 'mismatch' }
        return { state: 'completed', answer: answered.answer }
      }
      const mark = read(marks, key)
      if (mark && mark.token !== token) {
        return { state: mark.fingerprint === fingerprint ? 'in_flight' : 'mismatch' }
      }
      if (!mark && marks.size >= maxEntries) throw new Error('too many keys are claimed at once')
      marks.set(key, { fingerprint, token, expiresAt: now() + leaseMs })
      scheduleSweep()
      return { state: 'new' }
    },

    async complete(key, token, request) {
      const mark = read(marks, key)
      if ((mark && mark.token !== token) || read(answers, key)) return
      answers.set(key, { ...request, expiresAt: now() + ttlMs })
      scheduleSweep()
      settle(key)
    },

    async abandon(key, token) {
      if (read(marks, key)?.token === token) settle(key)
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

/** About how many bytes an entry takes; a string of Latin letters takes one a character. */
function sizeOf(key: string, fingerprint: string, { body, headers }: Answer): number {
  const texts = [key, fingerprint, ...Object.entries(headers).flat(2)]
  const characters = texts.reduce((sum, text) => sum + text.length, 0)
  return ENTRY_OVERHEAD_BYTES + characters + Buffer.byteLength(body)
}
