/** Sends 405 with `Allow` (RFC 9110 §15.5.6) where a path has routes, but not for the method. */
import { fastifyPlugin } from 'fastify-plugin'
import { getPath } from './error-handler.ts'
import { problems } from './problems.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Adds the routes that send 405; call it once, after the last route. */
    refuseOtherMethods(): void
  }
}

/** Register it before the routes: it collects their paths. */
export const methodNotAllowed = fastifyPlugin(
  async (app) => {
    const urls = new Set<string>()
    app.addHook('onRoute', ({ url }) => {
      urls.add(url)
    })

    app.decorate('refuseOtherMethods', () => {
      for (const url of [...urls]) {
        // Not from the hook: Fastify does not call it for the second form of a prefix, such as /docs/.
        const isServed = (method: string) => app.hasRoute({ method, url })
        const allow = app.supportedMethods.filter(isServed).sort().join(', ')
        app.route({
          method: app.supportedMethods.filter((method) => !isServed(method)),
          url,
          schema: { hide: true },
          // Before the body, which is not read.
          onRequest: async (request) => {
            throw problems.methodNotAllowed(getPath(request), request.method, allow)
          },
          handler: () => {},
        })
      }
    })
  },
  { name: 'method-not-allowed', dependencies: ['error-handler'] },
)
