/** `POST /orders`, behind the idempotency hook. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { type CompletedRequest, confirmReplay, fingerprintCanonical } from '@order-once/idempotency'
import type { FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { getClient } from '../clients/clients.ts'
import { createOrderSchema } from './openapi.ts'
import type { OrdersRepository } from './repository.ts'
import { buildResponse, canonicalizeOrder, type NewOrder } from './schema.ts'

const routes: FastifyPluginAsyncTypebox<{
  /** of a key that is sent with another body, for the OpenAPI document */
  mismatchStatus: 409 | 422
}> = async (app, { mismatchStatus }) => {
  app.post('/orders', { schema: createOrderSchema(mismatchStatus) }, async (request, reply) => {
    const { idempotency } = request
    if (idempotency === null) throw new Error('POST /orders is not behind the idempotency hook')
    const { order, inserted } = await app.orders.insertOnce({
      ...request.body,
      client_id: getClient(request).id,
      idempotency_key: idempotency.key,
      request_fingerprint: idempotency.fingerprint,
    })
    if (!inserted) confirmReplay(idempotency, order.request_fingerprint)
    const { statusCode, headers, body } = buildResponse(order)
    return reply.code(statusCode).headers(headers).send(body)
  })
}

export const orderRoutes = fastifyPlugin(routes, {
  name: 'order-routes',
  dependencies: ['orders-repository', 'body-check', '@order-once/idempotency'],
})

/** Computes the fingerprint of a validated order. The query is not part of it. */
export function fingerprintOrder({ method, routeOptions, url, body }: FastifyRequest): string {
  return fingerprintCanonical(method, routeOptions.url ?? url, canonicalizeOrder(body as NewOrder))
}

/** Rebuilds the response that the client's order of this key got, if there is an order. */
export async function recoverResponse(
  orders: OrdersRepository,
  key: string,
  request: FastifyRequest,
): Promise<CompletedRequest | undefined> {
  const order = await orders.findByKey(getClient(request).id, key)
  return order && { fingerprint: order.request_fingerprint, response: buildResponse(order) }
}
