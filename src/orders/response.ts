/** The response to an order: a pure function of its row, so that every repeat gets the same bytes. */
import type { StoredResponse } from '@order-once/idempotency'
import type { Order } from './repository.ts'
import { FIELD_NAMES } from './schema.ts'

export function buildResponse(order: Order): StoredResponse {
  const body: Record<string, unknown> = { id: order.id }
  for (const name of FIELD_NAMES) body[name] = order[name]
  body.idempotency_key = order.idempotency_key
  body.created_at = new Date(order.created_at).toISOString()
  return {
    statusCode: 201,
    headers: { 'content-type': 'application/json; charset=utf-8' },
    body: JSON.stringify({ order: body }),
  }
}
