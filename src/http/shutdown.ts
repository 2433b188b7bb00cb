/** A graceful end: refuses new requests, finishes those in flight, and closes every connection in time. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { FINISH_TIMEOUT_MS, IDLE_CONNECTION_GRACE_MS } from '../limits.ts'
import type { Connections } from './connections.ts'
import { problems } from './problems.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** served during overload and shutdown, too */
    isAlwaysServed?: boolean
  }
}

/** Register it after what handlers use: that is closed when they have finished. */
export const shutdown = fastifyPlugin(
  async (app, { connections }: { connections: Connections }) => {
    const requestsInFlight = new Set<FastifyRequest>()
    let isClosing = false
    let finishTimer: NodeJS.Timeout | undefined
    let endWait = () => {}

    app.addHook('onRequest', (request, _reply, done) => {
      requestsInFlight.add(request)
      if (!isClosing || request.routeOptions.config.isAlwaysServed) return done()
      done(problems.shuttingDown())
    })

    // Also called for a client that has disconnected.
    app.addHook('onSend', (request, reply, _payload, done) => {
      requestsInFlight.delete(request)
      if (requestsInFlight.size === 0) endWait()
      if (isClosing) reply.header('connection', 'close')
      done()
    })

    app.addHook('preClose', async () => {
      isClosing = true
      finishTimer = setTimeout(() => {
        app.server.closeAllConnections()
        requestsInFlight.clear()
        endWait()
      }, FINISH_TIMEOUT_MS)
      await Promise.race([connections.waitUntilNone(), sleep(IDLE_CONNECTION_GRACE_MS)])
      connections.closeUnused()
    })

    // All connections are closed; the handlers of clients that have disconnected may still be running.
    app.addHook('onClose', async () => {
      if (requestsInFlight.size > 0) await new Promise<void>((resolve) => (endWait = resolve))
      clearTimeout(finishTimer)
    })
  },
  { name: 'shutdown', dependencies: ['error-handler'] },
)
