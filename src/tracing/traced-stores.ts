import type { Tracer } from '@opentelemetry/api'
import type { IdempotencyStore } from '../idempotency/store.ts'
import type { OrdersRepository } from '../orders/orders-repository.ts'
import { inSpan } from './spans.ts'

/** The repository, with a span for each insert: for its wait as well, if it goes with others. */
export function traceOrders(orders: OrdersRepository, tracer: Tracer): OrdersRepository {
  return {
    ...orders,
    insertOnce: (order) =>
      inSpan(tracer, 'insert', async (span) => {
        const result = await orders.insertOnce(order)
        span.setAttribute('order.inserted', result.inserted)
        return result
      }),
  }
}

/** The store, with a span for each claim, renewals too, and for each answer that is remembered. */
export function traceStore(store: IdempotencyStore, tracer: Tracer): IdempotencyStore {
  return {
    ...store,
    claim: (...request) =>
      inSpan(tracer, 'claim', async (span) => {
        const claim = await store.claim(...request)
        span.setAttribute('idempotency.claim', claim.state)
        return claim
      }),
    complete: (...answered) => inSpan(tracer, 'remember', () => store.complete(...answered)),
  }
}
