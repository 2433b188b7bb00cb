/** A graceful end: refuses new requests, and lets no connection outlive its response. */
import { fastifyPlugin } from 'fastify-plugin'
import { FORCE_CLOSE_AFTER_MS } from '../limits.ts'
import type { Connections } from './connections.ts'
import { problems } from './problems.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** served during overload and shutdown, too */
    isAlwaysServed?: boolean
  }
}

export const shutdown = fastifyPlugin(
  async (app, { connections }: { connections: Connections }) => {
    let isClosing = false
    let forceCloseTimer: NodeJS.Timeout | undefined
    app.addHook('preClose', async () => {
      isClosing = true
      connections.closeUnused()
      forceCloseTimer = setTimeout(() => app.server.closeAllConnections(), FORCE_CLOSE_AFTER_MS)
    })
    app.server.on('close', () => clearTimeout(forceCloseTimer))

    app.addHook('onRequest', (request, _reply, done) => {
      if (!isClosing || request.routeOptions.config.isAlwaysServed) return done()
      done(problems.shuttingDown())
    })

    app.addHook('onSend', (_request, reply, _payload, done) => {
      if (isClosing) reply.header('connection', 'close')
      done()
    })
  },
  { name: 'shutdown', dependencies: ['error-handler'] },
)
