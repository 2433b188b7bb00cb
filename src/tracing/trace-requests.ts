import { FastifyOtelInstrumentation } from '@fastify/otel'
import { context, type Span, SpanStatusCode, type Tracer } from '@opentelemetry/api'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import type { Logger } from 'pino'
import { pathOf } from '../http/error-handler.ts'
import { noteFailure } from './spans.ts'

/** The hooks that have a span, by the names of their functions. */
const TRACED_HOOKS = ['signature', 'limit']

type Hook = (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void) => unknown

/**
 * Gives each request a span, which continues the trace of its `traceparent` (W3C Trace Context), and
 * its log lines the span's ids. Register it before whatever is to be traced.
 */
export const traceRequests = (tracer: Tracer) =>
  fastifyPlugin(async (app) => {
    // Whatever is not worth a line in the log is not worth a trace.
    app.addHook('onRoute', (route) => {
      if (route.logLevel === 'warn') route.config = { ...route.config, otel: false }
    })

    const instrumentation = new FastifyOtelInstrumentation({
      instrumentHooks: false,
      instrumentHandler: false,
      recordExceptions: false,
      requestHook: describe,
      // The handler of unknown paths has a span all the same, with the name of every plugin in its own.
      lifecycleHook: (span, { hookName }) => span.updateName(hookName),
    })
    await app.register(instrumentation.plugin())
    traceHooks(app, tracer)

    // What reads the body, and whatever follows it, is called by the connection, not by the request.
    app.addHook('preHandler', (request, _reply, done) => {
      const { context: current } = request.opentelemetry()
      if (current) context.with(current, done)
      else done()
    })

    app.addHook('onSend', (request, reply, _payload, done) => {
      const { span } = request.opentelemetry()
      const outcome = request.idempotency?.outcome
      if (outcome) span?.setAttribute('idempotency.outcome', outcome)
      // A refusal is not a failure; and of a failure, the message may quote a value.
      span?.setStatus({ code: reply.statusCode < 500 ? SpanStatusCode.OK : SpanStatusCode.ERROR })
      done()
    })
  })

function describe(span: Span, request: FastifyRequest): void {
  const { method, routeOptions } = request
  span.updateName(routeOptions.url ? `${method} ${routeOptions.url}` : method)
  span.setAttribute('url.path', pathOf(request)) // it would have the query, too
  const { traceId, spanId } = span.spanContext()
  const log = request.log as Logger
  log.setBindings({ trace_id: traceId, span_id: spanId })
}

/** Has the hooks of `TRACED_HOOKS`, whoever adds them from now on, run in a span. */
function traceHooks(app: FastifyInstance, tracer: Tracer): void {
  const { addHook } = app
  app.addHook = function (this: FastifyInstance, name: 'preHandler', hook: Hook) {
    const isTraced = TRACED_HOOKS.includes(hook.name)
    return addHook.call(this, name, (isTraced ? traced(hook, tracer) : hook) as never)
  } as typeof addHook
}

/** The hook, be it one that calls back or one that returns a promise, in a span that ends with it. */
function traced(hook: Hook, tracer: Tracer): Hook {
  return function (this: FastifyInstance, request, reply, done) {
    const span = tracer.startSpan(hook.name)
    function end(error?: Error): void {
      if (error) noteFailure(span, error)
      span.end()
      done(error)
    }
    const running = hook.call(this, request, reply, end)
    if (running instanceof Promise) running.then(() => end(), end)
  }
}
