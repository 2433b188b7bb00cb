/** `GET /`: what the service is, as a page with a form that sends an order, or as JSON. */
import { MAX_KEY_LENGTH } from '@order-once/idempotency'
import type { FastifyPluginAsync } from 'fastify'
import { APPLICATION } from '../application.ts'
import { sendPage, wantsPage } from './pages.ts'
import type { StoresInUse } from './stores-in-use.ts'

export interface FrontPageOptions {
  /** of the body of an order: the form has its limits and its example */
  orderSchema: object
  /** a published secret, which the page names */
  knownSecret: string | undefined
  /** whether `X-Signature` is accepted, which the page makes */
  hasSharedSecret: boolean
  stores: StoresInUse
  /** whether `/metrics` is among the routes */
  hasMetrics: boolean
}

/** Adds the front page. */
export const frontPage: FastifyPluginAsync<FrontPageOptions> = async (
  app,
  { orderSchema, stores, hasMetrics, ...secret },
) => {
  const { name, description } = APPLICATION
  const links = {
    reference: '/docs',
    openapi: '/openapi.json',
    problems: '/problems',
    health: '/health/ready',
    ...(hasMetrics && { metrics: '/metrics' }),
  }
  const page = {
    ...secret,
    description,
    stores,
    links,
    order: orderSchema,
    maxKeyLength: MAX_KEY_LENGTH,
  }
  app.get('/', (request, reply) =>
    wantsPage(request, reply)
      ? sendPage(reply, 'front-page', page)
      : reply.send({ name, description, stores, links }),
  )
}
