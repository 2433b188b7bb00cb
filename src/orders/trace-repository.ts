/** Spans for the calls to the repository. */
import type { Tracer } from '@opentelemetry/api'
import { withSpan } from '../observability/spans.ts'
import type { OrdersRepository } from './repository.ts'

/** Adds a span to each insert, its wait for a batch included, and to each look-up. */
export function traceOrders(orders: OrdersRepository, tracer: Tracer): OrdersRepository {
  return {
    queue: () => orders.queue(),
    insertOnce: (order) =>
      withSpan(tracer, 'insert', async (span) => {
        const result = await orders.insertOnce(order)
        span.setAttribute('order.inserted', result.inserted)
        return result
      }),
    findById: (clientId, id) => withSpan(tracer, 'find', () => orders.findById(clientId, id)),
    findByKey: (clientId, key) => withSpan(tracer, 'find', () => orders.findByKey(clientId, key)),
  }
}
