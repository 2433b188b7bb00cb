/** Spans for the calls to the store of idempotency records. */
import type { Tracer } from '@opentelemetry/api'
import type { IdempotencyStore } from '@order-once/idempotency'
import { withSpan } from '../observability/spans.ts'

/** Adds a span to each call that has to do with a claim or a response. */
export function traceStore(store: IdempotencyStore, tracer: Tracer): IdempotencyStore {
  const watch = store.watch?.bind(store)
  return {
    leaseMs: store.leaseMs,
    ttlMs: store.ttlMs,
    replayedHeaders: store.replayedHeaders,
    claim: (key, fingerprint, token, sendUntil) =>
      withSpan(tracer, 'claim', async (span) => {
        const claim = await store.claim(key, fingerprint, token, sendUntil)
        span.setAttribute('idempotency.claim', claim.state)
        return claim
      }),
    renew: (key, fingerprint, token) =>
      withSpan(tracer, 'renew', () => store.renew(key, fingerprint, token)),
    complete: (key, token, request) =>
      withSpan(tracer, 'complete', () => store.complete(key, token, request)),
    release: (key, token) => withSpan(tracer, 'release', () => store.release(key, token)),
    // Not traced: it lasts as long as a duplicate waits.
    ...(watch && { watch }),
  }
}
