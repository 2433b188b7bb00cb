import { fastifyPlugin } from 'fastify-plugin'
import { headerLines } from './header-lines.ts'
import { Problem } from './problem.ts'

/** Refuses HTTP/1.1 without exactly one `Host` (RFC 9112 §3.2). */
export const hostCheck = fastifyPlugin(async (app) => {
  app.addHook('onRequest', (request, _reply, done) => {
    const hosts = headerLines(request, 'host').length
    const isRight = hosts === 1 || (hosts === 0 && request.raw.httpVersion !== '1.1')
    done(isRight ? undefined : new Problem('bad-request', 'Host must be sent exactly once.'))
  })
})
