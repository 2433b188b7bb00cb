/** Adds the hooks of the plugin to the routes that it protects, as their last. */
import type {
  FastifyInstance,
  FastifyRequest,
  preHandlerAsyncHookHandler,
  preValidationHookHandler,
} from 'fastify'

export interface RouteHooks {
  methods: ReadonlySet<string>
  preValidation: preValidationHookHandler
  preHandler: preHandlerAsyncHookHandler
  /** calls the handler of the route */
  run: (request: FastifyRequest, handler: () => unknown) => unknown
  /** whether the `preValidation` hook has seen the request (`request.routeOptions` is slower) */
  isPrepared: (request: FastifyRequest) => boolean
}

/**
 * Adds the hooks to each route of the scope that is declared from now on. They are the last of their kind,
 * also after those of the route itself: a caller who is refused by another hook never gets a replay.
 *
 * A route that was declared before responds with 500: it would run its handler without protection.
 */
export function protectRoutes(app: FastifyInstance, hooks: RouteHooks): void {
  const { methods, preValidation, preHandler, run, isPrepared } = hooks

  app.addHook('onRoute', function addHooks(route) {
    if (![route.method].flat().some((method) => methods.has(method))) return
    const { handler } = route
    route.handler = function runHandler(request, reply) {
      return run(request, () => handler.call(this, request, reply))
    }
    // Now all other `onRoute` hooks have seen the route, and Fastify has not put its hooks together yet.
    this.after(() => {
      route.preValidation = append(route.preValidation, preValidation)
      route.preHandler = append(route.preHandler, preHandler)
    })
  })

  app.addHook('preHandler', function checkRoute(request, _reply, done) {
    if (isPrepared(request) || request.is404 || !methods.has(request.method)) return done()
    const route = `${request.method} ${request.routeOptions.url}`
    const message = `${route} was declared before the plugin @order-once/idempotency was registered`
    request.log.error(`${message}: await its registration first`)
    done(new Error(message))
  })
}

/** A new array: other routes may share the one that is there. */
const append = <Hook>(hooks: Hook | Hook[] | undefined, last: Hook): Hook[] =>
  [...(hooks === undefined ? [] : [hooks].flat()), last] as Hook[]
