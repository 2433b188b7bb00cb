import { AnswerCache } from './answer-cache.ts'
import type { Claim, IdempotencyStore } from './store.ts'

/** About 20 000 answers of orders: repeats come within seconds, and in swarms. */
const DEFAULT_MAX_BYTES = 16 * 1024 * 1024

/**
 * The store, before which this process remembers the answers that were repeated: they never change, so
 * the next repeats need not ask for them. It remembers none for longer than the store does. (Answers
 * that are not repeated, as most are, would only pass through its memory.)
 *
 * @param options `maxBytes`: of all answers, about; `now`: a clock in ms that never goes back
 */
export function cacheAnswers(
  store: IdempotencyStore,
  { maxBytes = DEFAULT_MAX_BYTES, now }: { maxBytes?: number; now?: () => number } = {},
): IdempotencyStore {
  const answers = new AnswerCache({ maxBytes, ...(now && { now }) })

  async function claimInStore(key: string, fingerprint: string, token: string): Promise<Claim> {
    const claim = await store.claim(key, fingerprint, token)
    if (claim.state === 'completed' && claim.remainsMs !== undefined) {
      answers.set(key, { fingerprint, answer: claim.answer }, claim.remainsMs)
    }
    return claim
  }

  return {
    ...store,

    claim(key, fingerprint, token) {
      const known = answers.get(key)
      if (known === undefined) return claimInStore(key, fingerprint, token)
      if (known.fingerprint !== fingerprint) return { state: 'mismatch', isAnswered: true }
      return { state: 'completed', answer: known.answer }
    },
  }
}
