/** Keeps the bytes of a body, which the signature covers, until `bodyCheck` parses them. */
import { fastifyPlugin } from 'fastify-plugin'

declare module 'fastify' {
  interface FastifyRequest {
    /** the bytes of the body */
    rawBody: Buffer
  }
}

const NO_BYTES = Buffer.alloc(0)

export const rawBody = fastifyPlugin(
  async (app) => {
    app.decorateRequest('rawBody')
    app.removeAllContentTypeParsers()

    app.addHook('onRequest', (request, _reply, done) => {
      request.rawBody = NO_BYTES
      // Fastify refuses a Content-Type that it cannot parse before any hook could check a signature.
      if (!request.mediaType) delete request.raw.headers['content-type']
      done()
    })

    app.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body: Buffer, done) => {
      request.rawBody = body
      done(null)
    })
  },
  { name: 'raw-body' },
)
