import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import { fingerprintOfCanonical } from '../idempotency/fingerprint.ts'
import type { Answer, AnsweredRequest } from '../idempotency/store.ts'
import { canonicalOrder, OrderInput } from './order.ts'
import { orderReference } from './order-reference.ts'
import type { Order, OrdersRepository } from './orders-repository.ts'

/** `POST /orders`, behind the idempotency hook. */
export const orderRoutes: FastifyPluginAsyncTypebox<{
  orders: OrdersRepository
  /** of a key that is sent with another body, for the reference */
  mismatchStatus: 409 | 422
}> = async (app, { orders, mismatchStatus }) => {
  const options = {
    schema: { body: OrderInput },
    config: { reference: orderReference(mismatchStatus) },
  }
  app.post('/orders', options, async (request, reply) => {
    const { idempotency } = request
    if (idempotency === null) throw new Error('POST /orders is not behind the idempotency hook')
    const { order, inserted } = await orders.insertOnce({
      // Member by member: a spread of what was parsed takes some µs.
      user_id: request.body.user_id,
      item: request.body.item,
      amount: request.body.amount,
      idempotencyKey: idempotency.key,
      requestFingerprint: idempotency.fingerprint,
    })
    if (!inserted) idempotency.foundInDatabase(order.requestFingerprint)
    const { statusCode, headers, body } = answerOf(order)
    return reply.code(statusCode).headers(headers).send(body)
  })
}

/** What tells the same order, once its body is known to be one; a query is nothing to it. */
export function orderFingerprint({ method, routeOptions, url, body }: FastifyRequest): string {
  return fingerprintOfCanonical(method, routeOptions.url ?? url, canonicalOrder(body as OrderInput))
}

/** Rebuilds the answer that the order under this key got, if there is one. */
export async function recoverAnswer(
  orders: OrdersRepository,
  key: string,
): Promise<AnsweredRequest | undefined> {
  const order = await orders.findByKey(key)
  return order && { fingerprint: order.requestFingerprint, answer: answerOf(order) }
}

/** The answer to an order: a pure function of its row, so that every repeat gets the same bytes. */
export function answerOf(order: Order): Answer {
  return {
    statusCode: 201,
    headers: { 'content-type': 'application/json; charset=utf-8' },
    body: JSON.stringify({
      order: {
        id: order.id,
        user_id: order.userId,
        item: order.item,
        amount: Number(order.amount),
        idempotency_key: order.idempotencyKey,
        created_at: order.createdAt.toISOString(),
      },
    }),
  }
}
