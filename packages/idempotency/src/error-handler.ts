/** Sends refusals as problem documents, for applications without an error handler that does. */
import { fastifyPlugin } from 'fastify-plugin'
import { PROBLEM_MEDIA_TYPE, Problem } from './problem.ts'

/**
 * Sends each `Problem` as `application/problem+json` (RFC 9457); every other error goes on to
 * Fastify's own handler.
 *
 * @param options `typeBaseUrl`: the `type` of a problem is this with its code appended; `about:blank`
 */
export const errorHandler = fastifyPlugin(
  async (app, { typeBaseUrl }: { typeBaseUrl?: string } = {}) => {
    app.setErrorHandler((error, _request, reply) => {
      if (!(error instanceof Problem)) throw error
      return reply
        .code(error.statusCode)
        .headers(error.headers)
        .type(PROBLEM_MEDIA_TYPE)
        .send(JSON.stringify(error.toDocument(typeBaseUrl)))
    })
  },
  { name: '@order-once/idempotency-error-handler' },
)
