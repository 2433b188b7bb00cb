/** A graceful end: refuses new requests, finishes those in flight, and closes every connection in time. */
import { setTimeout as sleep } from 'node:timers/promises'
import { fastifyPlugin } from 'fastify-plugin'
import { FINISH_TIMEOUT_MS, IDLE_CONNECTION_GRACE_MS } from '../limits.ts'
import type { Connections } from './connections.ts'
import { problems } from './problems.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** served during overload and shutdown, too */
    isAlwaysServed?: boolean
  }
  interface FastifyRequest {
    isInFlight: boolean
  }
}

/** Register it after what handlers use: that is closed when they have finished. */
export const shutdown = fastifyPlugin(
  async (app, { connections }: { connections: Connections }) => {
    // Not a `Set` of them: see docs/performance.md.
    let requestsInFlight = 0
    let isClosing = false
    let finishTimer: NodeJS.Timeout | undefined
    let endWait = () => {}

    app.decorateRequest('isInFlight', false)
    app.addHook('onRequest', (request, _reply, done) => {
      request.isInFlight = true
      requestsInFlight++
      if (!isClosing || request.routeOptions.config.isAlwaysServed) return done()
      done(problems.shuttingDown())
    })

    // Also called for a client that has disconnected.
    app.addHook('onSend', (request, reply, _payload, done) => {
      if (request.isInFlight && --requestsInFlight === 0) endWait()
      request.isInFlight = false // the hook runs again for an error of another onSend hook
      if (isClosing) reply.header('connection', 'close')
      done()
    })

    app.addHook('preClose', async () => {
      isClosing = true
      finishTimer = setTimeout(() => {
        app.server.closeAllConnections()
        // A later `onSend` of these requests makes the count negative: `onClose` waits only for a positive one.
        requestsInFlight = 0
        endWait()
      }, FINISH_TIMEOUT_MS)
      await Promise.race([connections.waitUntilNone(), sleep(IDLE_CONNECTION_GRACE_MS)])
      connections.closeUnused()
    })

    // All connections are closed; the handlers of clients that have disconnected may still be running.
    app.addHook('onClose', async () => {
      if (requestsInFlight > 0) await new Promise<void>((resolve) => (endWait = resolve))
      clearTimeout(finishTimer)
    })
  },
  { name: 'shutdown', dependencies: ['error-handler'] },
)
