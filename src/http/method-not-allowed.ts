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

/** Register it before the routes: it collects their methods. */
export const methodNotAllowed = fastifyPlugin(
  async (app) => {
    const methodsByUrl = new Map<string, Set<string>>()
    app.addHook('onRoute', ({ url, method }) => {
      const methods = methodsByUrl.get(url) ?? new Set()
      for (const name of [method].flat()) methods.add(name)
      methodsByUrl.set(url, methods)
    })

    app.decorate('refuseOtherMethods', () => {
      for (const [url, methods] of [...methodsByUrl]) {
        const allow = [...methods].sort().join(', ')
        app.route({
          method: app.supportedMethods.filter((method) => !methods.has(method)),
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
