import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { fastifyPlugin } from 'fastify-plugin'

/** Long enough for a UUID, a ULID or a trace id with a prefix; nothing that could forge a log line. */
const WELL_FORMED_ID = /^[\w.:+/=-]{1,128}$/

/** The request's id: the client's `X-Request-Id` if it is well-formed, else a new UUID. */
export function requestIdOf(request: Pick<IncomingMessage, 'headers'>): string {
  const given = request.headers['x-request-id']
  return typeof given === 'string' && WELL_FORMED_ID.test(given) ? given : randomUUID()
}

/**
 * Returns the request's id in `X-Request-Id` and logs one line a request, without its contents, when
 * its answer is sent or its client has gone away; the request itself may then still come to its end.
 */
export const requestLog = fastifyPlugin(async (app) => {
  const isLogged = ['info', 'debug', 'trace'].includes(app.log.level)

  app.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id)
    if (!isLogged) return done()
    reply.raw.on('close', () => {
      const isAnswered = reply.raw.writableFinished
      request.log.info(
        {
          method: request.method,
          route: request.routeOptions.url,
          ...(isAnswered ? { status: reply.statusCode } : { aborted: true }),
          duration_ms: Math.round(reply.elapsedTime * 1000) / 1000,
          idempotency: request.idempotency?.outcome,
        },
        'request',
      )
    })
    done()
  })
})
