/** Refuses HTTP/1.1 without exactly one `Host` (RFC 9112 §3.2). */
import type { FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { problems } from './problems.ts'

export const hostHeader = fastifyPlugin(
  async (app) => {
    app.addHook('onRequest', (request, _reply, done) => {
      const hosts = countHostLines(request)
      const isValid = hosts === 1 || (hosts === 0 && request.raw.httpVersion !== '1.1')
      done(isValid ? undefined : problems.hostHeader())
    })
  },
  { name: 'host-header', dependencies: ['error-handler'] },
)

/** `request.headers` has only the first of several. */
function countHostLines({ raw }: FastifyRequest): number {
  let count = 0
  for (let i = 0; i < raw.rawHeaders.length; i += 2) {
    const name = raw.rawHeaders[i]
    if (name?.length === 4 && name.toLowerCase() === 'host') count++
  }
  return count
}
