import { AnswerCache } from './answer-cache.ts'
import type { IdempotencyStore } from './store.ts'

/** The answers of the last seconds of a busy process, when most repeats come: about 20 000. */
const DEFAULT_MAX_BYTES = 16 * 1024 * 1024

/**
 * The store, before which this process remembers finished answers, too: they never change, so a repeat
 * need not ask for them. It remembers none for longer than the store does.
 *
 * @param options `ttlMs`: how long the store remembers an answer; `maxBytes`: of all answers, about
 */
export function cacheAnswers(
  store: IdempotencyStore,
  options: { ttlMs: number; maxBytes?: number; now?: () => number },
): IdempotencyStore {
  const { ttlMs, maxBytes = DEFAULT_MAX_BYTES, now } = options
  const answers = new AnswerCache({ maxBytes, ...(now && { now }) })
  return {
    ...store,

    async claim(key, fingerprint, token) {
      const known = answers.get(key)
      if (known) {
        if (known.fingerprint !== fingerprint) return { state: 'mismatch', isAnswered: true }
        return { state: 'completed', answer: known.answer }
      }
      const claim = await store.claim(key, fingerprint, token)
      if (claim.state === 'completed' && claim.remainsMs !== undefined) {
        answers.set(key, { fingerprint, answer: claim.answer }, claim.remainsMs)
      }
      return claim
    },

    async complete(key, token, request) {
      const isRemembered = await store.complete(key, token, request)
      if (isRemembered) answers.set(key, request, ttlMs)
      return isRemembered
    },
  }
}
