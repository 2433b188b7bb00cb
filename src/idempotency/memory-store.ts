import type { AnsweredRequest, Claim, IdempotencyStore } from './store.ts'

type Entry = { fingerprint: string; expiresAt: number } & (
  | { token: string }
  | { answer: AnsweredRequest['answer'] }
)

/**
 * Keeps the records in this process: for one instance, in development and in tests.
 *
 * @param options `leaseMs`: how long a claim holds; `ttlMs`: how long an answer is remembered;
 * `now`: a clock in ms that never goes back
 */
export function createMemoryStore(options: {
  leaseMs: number
  ttlMs: number
  now?: () => number
}): IdempotencyStore {
  const { leaseMs, ttlMs, now = () => performance.now() } = options
  const entries = new Map<string, Entry>()

  function read(key: string): Entry | undefined {
    const entry = entries.get(key)
    if (entry === undefined || entry.expiresAt > now()) return entry
    entries.delete(key)
    return undefined
  }

  return {
    async claim(key, fingerprint, token): Promise<Claim> {
      const entry = read(key)
      if (entry === undefined) {
        entries.set(key, { fingerprint, token, expiresAt: now() + leaseMs })
        return { state: 'new' }
      }
      if ('token' in entry && entry.token === token) return { state: 'new' }
      if (entry.fingerprint !== fingerprint) return { state: 'mismatch' }
      if ('answer' in entry) return { state: 'completed', answer: entry.answer }
      return { state: 'in_flight' }
    },

    async complete(key, token, { fingerprint, answer }) {
      const entry = read(key)
      if (entry !== undefined && !('token' in entry && entry.token === token)) return
      entries.set(key, { fingerprint, answer, expiresAt: now() + ttlMs })
    },

    async abandon(key, token) {
      const entry = read(key)
      if (entry !== undefined && 'token' in entry && entry.token === token) entries.delete(key)
    },
  }
}
