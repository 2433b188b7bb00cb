/** Refuses HTTP/1.1 without exactly one `Host` (RFC 9112 §3.2). */
import { fastifyPlugin } from 'fastify-plugin'
import { getHeaderLines } from './header-lines.ts'
import { problems } from './problems.ts'

export const hostHeader = fastifyPlugin(
  async (app) => {
    app.addHook('onRequest', (request, _reply, done) => {
      const hosts = getHeaderLines(request, 'host').length
      const isValid = hosts === 1 || (hosts === 0 && request.raw.httpVersion !== '1.1')
      done(isValid ? undefined : problems.hostHeader())
    })
  },
  { name: 'host-header', dependencies: ['error-handler'] },
)
