/** A span for each request, by @fastify/otel. */
import { FastifyOtelInstrumentation } from '@fastify/otel'
import { context, type Span } from '@opentelemetry/api'
import type { FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { getPath } from '../http/error-handler.ts'

/** The hook of @fastify/otel that makes the span of a request an error. */
const ERROR_HOOK = 'recordErrorInSpanHook'

/**
 * Gives each request a span, which continues the trace of its `traceparent` (W3C Trace Context), and its
 * log lines the ids of the span. Register it before the routes.
 */
export const traceRequests = fastifyPlugin(async (app) => {
  // A route that is not worth a log line is not worth a trace.
  app.addHook('onRoute', (route) => {
    if (route.logLevel === 'warn') route.config = { ...route.config, otel: false }
  })

  const instrumentation = new FastifyOtelInstrumentation({
    instrumentHooks: false,
    instrumentHandler: false,
    recordExceptions: false,
    requestHook: describeRequest,
  })
  const { setNotFoundHandler } = app
  await app.register(instrumentation.plugin())
  app.setNotFoundHandler = setNotFoundHandler // its wrapper adds a span with the names of all plugins
  // This hook would record each thrown error in the span, although it may be a refusal, and its message may quote a
  // value. A response with 5xx makes its span an error without the hook.
  app.addHook('onRoute', (route) => {
    route.onError = [route.onError ?? []].flat().filter((hook) => hook.name !== ERROR_HOOK)
  })

  // After the body is read, hooks run in the context of the connection, not of the request.
  app.addHook('preHandler', (request, _reply, done) => {
    const { context: current } = request.opentelemetry()
    if (current) context.with(current, done)
    else done()
  })

  app.addHook('onSend', (request, _reply, _payload, done) => {
    const { span } = request.opentelemetry()
    if (request.client) span?.setAttribute('client.id', request.client.id)
    const outcome = request.idempotency?.outcome
    if (outcome) span?.setAttribute('idempotency.outcome', outcome)
    done()
  })
})

function describeRequest(span: Span, request: FastifyRequest): void {
  const { method, routeOptions } = request
  span.updateName(routeOptions.url ? `${method} ${routeOptions.url}` : method)
  span.setAttribute('url.path', getPath(request)) // by default with the query
  const { traceId, spanId } = span.spanContext()
  if ('setBindings' in request.log && typeof request.log.setBindings === 'function') {
    request.log.setBindings({ trace_id: traceId, span_id: spanId })
  }
}
