import type { IdempotencyStore } from '../../packages/idempotency/src/stores/store.ts'

/** For `wrapIdempotencyStore`: counts the claims that reach the store. */
export function createClaimCounter() {
  let claims = 0
  return {
    claims: () => claims,
    wrapIdempotencyStore: (store: IdempotencyStore): IdempotencyStore => ({
      ...store,
      claim: (key, fingerprint, token) => {
        claims++
        return store.claim(key, fingerprint, token)
      },
    }),
  }
}
