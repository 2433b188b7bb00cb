import { fastifyPlugin } from 'fastify-plugin'
import { Problem } from './problem.ts'

/** A load balancer has found another instance by then, or this one is back. */
const RETRY_AFTER_SECONDS = '1'

/** Once the app begins to close: refuses new requests, and lets no connection outlive its answer. */
export const gracefulClose = fastifyPlugin(async (app) => {
  let closing = false
  app.addHook('preClose', async () => {
    closing = true
  })

  app.addHook('onRequest', async () => {
    if (!closing) return
    throw new Problem('shutting-down', 'This instance takes no new requests.', {
      headers: { 'retry-after': RETRY_AFTER_SECONDS },
    })
  })

  app.addHook('onSend', async (_request, reply) => {
    if (closing) reply.header('connection', 'close')
  })
})
