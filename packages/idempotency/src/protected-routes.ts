/** Adds the hooks of the plugin to the routes that it protects, as their last. */
import type {
  FastifyInstance,
  FastifyRequest,
  preHandlerAsyncHookHandler,
  preValidationHookHandler,
} from 'fastify'

export interface RouteHooks {
  methods: ReadonlySet<string>
  preValidation: preValidationHookHandler | undefined
  preHandler: preHandlerAsyncHookHandler
  /** calls the handler of the route */
  run: (request: FastifyRequest, handler: () => unknown) => unknown
}

declare module 'fastify' {
  interface FastifyContextConfig {
    [isProtected]?: true
  }
}

/** In the configuration of each route that has the hooks. */
const isProtected = Symbol('isProtected')

/**
 * Adds the hooks to each route of the scope that is declared from now on. They are the last of their kind,
 * also after those of the route itself: a caller who is refused by another hook never gets a replay.
 *
 * A route that was declared before responds with 500: it would run its handler without protection.
 */
export function protectRoutes(app: FastifyInstance, hooks: RouteHooks): void {
  const { methods, preValidation, preHandler, run } = hooks

  app.addHook('onRoute', function addHooks(route) {
    if (![route.method].flat().some((method) => methods.has(method))) return
    route.config = { ...route.config, [isProtected]: true }
    const { handler } = route
    route.handler = function runHandler(request, reply) {
      return run(request, () => handler.call(this, request, reply))
    }
    // Now all other `onRoute` hooks have seen the route, and Fastify has not put its hooks together yet.
    this.after(() => {
      if (preValidation) route.preValidation = append(route.preValidation, preValidation)
      route.preHandler = append(route.preHandler, preHandler)
    })
  })

  app.addHook('preHandler', function checkRoute(request, _reply, done) {
    if (request.is404 || !methods.has(request.method) || isRouteProtected(request)) return done()
    const route = `${request.method} ${request.routeOptions.url}`
    const message = `${route} was declared before the plugin @order-once/idempotency was registered`
    request.log.error(`${message}: await its registration first`)
    done(new Error(message))
  })
}

const isRouteProtected = ({ routeOptions }: FastifyRequest) => isProtected in routeOptions.config

/** A new array: other routes may share the one that is there. */
const append = <Hook>(hooks: Hook | Hook[] | undefined, last: Hook): Hook[] =>
  [...(hooks === undefined ? [] : [hooks].flat()), last] as Hook[]
