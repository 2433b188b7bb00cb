import { fastifyPlugin } from 'fastify-plugin'
import type { Connections } from './connections.ts'
import { Problem } from './problem.ts'

/** A load balancer has found another instance by then, or this one is back. */
const RETRY_AFTER_SECONDS = '1'

/** Then the connections are cut, of a client that sends too slowly say, so that the stores can close. */
const PATIENCE_MS = 8_000

/** Once the app begins to close: refuses new requests, and lets no connection outlive its answer. */
export const gracefulClose = fastifyPlugin(
  async (app, { connections }: { connections: Connections }) => {
    let closing = false
    let timer: NodeJS.Timeout | undefined
    app.addHook('preClose', async () => {
      closing = true
      connections.endUnused()
      timer = setTimeout(() => app.server.closeAllConnections(), PATIENCE_MS)
    })
    app.server.on('close', () => clearTimeout(timer))

    app.addHook('onRequest', (request, _reply, done) => {
      if (!closing || request.routeOptions.config.alwaysAnswers) return done()
      const headers = { 'retry-after': RETRY_AFTER_SECONDS }
      done(new Problem('shutting-down', 'This instance takes no new requests.', { headers }))
    })

    app.addHook('onSend', (_request, reply, _payload, done) => {
      if (closing) reply.header('connection', 'close')
      done()
    })
  },
)
