/** Request ids, and one log line a request. */
import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { fastifyPlugin } from 'fastify-plugin'

/** Long enough for a UUID, a ULID or a trace id with a prefix; nothing that could forge a log line. */
const WELL_FORMED_ID = /^[\w.:+/=-]{1,128}$/

/** Returns the request's id: the client's `X-Request-Id` if it is well-formed, else a new UUID. */
export function getRequestId(request: Pick<IncomingMessage, 'headers'>): string {
  const given = request.headers['x-request-id']
  return typeof given === 'string' && WELL_FORMED_ID.test(given) ? given : randomUUID()
}

/**
 * Returns the request's id in `X-Request-Id` and logs one line a request, without its contents, when its
 * response is sent or its client has disconnected; the request itself may then still be processed.
 */
export const requestLog = fastifyPlugin(
  async (app) => {
    const isLogged = ['info', 'debug', 'trace'].includes(app.log.level)

    app.addHook('onRequest', (request, reply, done) => {
      reply.header('x-request-id', request.id)
      if (!isLogged) return done()
      reply.raw.on('close', () => {
        const isSent = reply.raw.writableFinished
        request.log.info(
          {
            method: request.method,
            route: request.routeOptions.url,
            ...(isSent ? { status: reply.statusCode } : { aborted: true }),
            duration_ms: Math.round(reply.elapsedTime * 1000) / 1000,
            client: request.client?.id,
            idempotency: request.idempotency?.outcome,
          },
          'request',
        )
      })
      done()
    })
  },
  { name: 'request-log' },
)
