/** `POST /orders`, behind the idempotency hook, and the routes that read orders. */
import {
  type CompletedRequest,
  confirmReplay,
  type IdempotentRequest,
  parseIdempotencyKey,
} from '@order-once/idempotency'
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { getClient } from '../clients/clients.ts'
import { problems } from '../http/problems.ts'
import { UUID } from '../uuid.ts'
import { createOrderSchema, FIND_ORDER_SCHEMA, READ_ORDER_SCHEMA } from './openapi.ts'
import type { OrdersRepository } from './repository.ts'
import {
  buildResponse,
  listChangedFields,
  type NewOrder,
  ORDERS_PATH,
  type Order,
} from './schema.ts'

const routes: FastifyPluginAsync<{
  /** of a key that is sent with another body, for the OpenAPI document */
  mismatchStatus: 409 | 422
}> = async (app, { mismatchStatus }) => {
  const createSchema = createOrderSchema(mismatchStatus)
  app.post<{ Body: NewOrder }>(ORDERS_PATH, { schema: createSchema }, async (request, reply) => {
    const idempotency = getIdempotency(request)
    const { order, inserted } = await app.orders.insertOnce({
      ...request.body,
      client_id: getClient(request).id,
      idempotency_key: idempotency.key,
      request_fingerprint: idempotency.fingerprint,
    })
    if (!inserted) {
      const listChanges = () => listChangedFields(request.body, order)
      confirmReplay(idempotency, order.request_fingerprint, listChanges)
    }
    const { statusCode, headers, body } = buildResponse(order)
    return reply.code(statusCode).headers(headers).send(body)
  })

  app.get<{ Params: { id: string } }>(
    `${ORDERS_PATH}/:id`,
    { schema: READ_ORDER_SCHEMA },
    async (request, reply) => {
      const { id } = request.params
      const order = UUID.test(id) ? await app.orders.findById(getClient(request).id, id) : undefined
      return sendOrder(reply, order, 'id')
    },
  )

  app.get(ORDERS_PATH, { schema: FIND_ORDER_SCHEMA }, async (request, reply) => {
    const key = parseKeyQuery(request.url)
    return sendOrder(reply, await app.orders.findByKey(getClient(request).id, key), 'key')
  })
}

/** Adds the routes that create and read orders. */
export const orderRoutes = fastifyPlugin(routes, {
  name: 'order-routes',
  dependencies: ['orders-repository', 'body-check', '@order-once/idempotency'],
})

/** @throws if the request is not behind the idempotency hook */
function getIdempotency({ idempotency }: FastifyRequest): IdempotentRequest {
  if (idempotency === null) throw new Error('the request is not behind the idempotency hook')
  return idempotency
}

/** Rebuilds the response that the client's order of the request's key got, if there is an order. */
export async function recoverResponse(
  orders: OrdersRepository,
  request: FastifyRequest,
): Promise<CompletedRequest | undefined> {
  const order = await orders.findByKey(getClient(request).id, getIdempotency(request).key)
  return (
    order && {
      fingerprint: order.request_fingerprint,
      response: buildResponse(order),
      listChanges: () => listChangedFields(request.body as NewOrder, order),
    }
  )
}

/** Parses the query, `idempotency_key=<key>`. @throws {Problem} `bad-request`, if it is another */
function parseKeyQuery(url: string): string {
  const [, value = ''] = /^[^?]*\?idempotency_key=([^&]*)$/.exec(url) ?? []
  const key = parseIdempotencyKey(decode(value))
  if (key !== undefined) return key
  throw problems.badRequest('The query must be idempotency_key=<key>, URL-encoded.')
}

/** @returns '' for a text that is not URL-encoded (RFC 3986 §2.1) */
function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return ''
  }
}

/** Sends the order with the bytes of its 201. @throws {Problem} `order-not-found`, if there is none */
function sendOrder(reply: FastifyReply, order: Order | undefined, by: 'id' | 'key') {
  if (order === undefined) throw problems.orderNotFound(by)
  const { headers, body } = buildResponse(order)
  return reply.type(`${headers['content-type']}`).send(body)
}
