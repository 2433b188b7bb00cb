import { fastifyPlugin } from 'fastify-plugin'
import { pathOf } from './error-handler.ts'
import { Problem } from './problem.ts'

/**
 * Answers 405 with `Allow` (RFC 9110 §15.5.6) wherever a path has routes but not for the method.
 * Registered before the routes, it learns of them; `refuseOtherMethods`, after them, adds the refusals.
 */
export const methodNotAllowed = fastifyPlugin(async (app) => {
  const taken = new Map<string, Set<string>>()
  app.addHook('onRoute', ({ url, method }) => {
    const methods = taken.get(url) ?? new Set()
    for (const name of [method].flat()) methods.add(name)
    taken.set(url, methods)
  })

  app.decorate('refuseOtherMethods', () => {
    for (const [url, methods] of [...taken]) {
      const allow = [...methods].sort().join(', ')
      app.route({
        method: app.supportedMethods.filter((method) => !methods.has(method)),
        url,
        // Before the body, which is nobody's business here.
        onRequest: async (request) => {
          throw new Problem(
            'method-not-allowed',
            `${pathOf(request)} takes ${allow}, not ${request.method}.`,
            {
              headers: { allow },
            },
          )
        },
        handler: () => {},
      })
    }
  })
})

declare module 'fastify' {
  interface FastifyInstance {
    /** Adds the 405 answers; call it once, after the last route. */
    refuseOtherMethods(): void
  }
}
