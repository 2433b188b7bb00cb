import { fastifyPlugin } from 'fastify-plugin'
import { headerLines } from './header-lines.ts'
import { Problem } from './problem.ts'

/** Refuses HTTP/1.1 without exactly one `Host` (RFC 9112 §3.2). */
export const hostCheck = fastifyPlugin(async (app) => {
  app.addHook('onRequest', async (request) => {
    const hosts = headerLines(request, 'host').length
    if (hosts > 1 || (hosts === 0 && request.raw.httpVersion === '1.1')) {
      throw new Problem('bad-request', 'Host must be sent exactly once.')
    }
  })
})
