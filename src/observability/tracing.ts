/** Traces, exported to an OpenTelemetry collector. Loaded only where traces are wanted. */
import { randomUUID } from 'node:crypto'
import { setImmediate as nextTick } from 'node:timers/promises'
import {
  context,
  type DiagLogger,
  DiagLogLevel,
  diag,
  propagation,
  type Tracer,
  trace,
} from '@opentelemetry/api'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import {
  defaultResource,
  detectResources,
  envDetector,
  resourceFromAttributes,
} from '@opentelemetry/resources'
import { BatchSpanProcessor, NodeTracerProvider } from '@opentelemetry/sdk-trace-node'
import { withDeadline } from '@order-once/idempotency/batching'
import type { FastifyBaseLogger } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { APPLICATION } from '../application.ts'
import { TRACES_FLUSH_TIMEOUT_MS } from '../limits.ts'
import { traceRequests } from './trace-requests.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** undefined: nothing is traced */
    tracer: Tracer | undefined
  }
}

/** A collector that is down fails every few seconds, which is worth a line now and then. */
const WARNING_INTERVAL_MS = 60_000

/**
 * Starts OpenTelemetry's SDK, once in a process, decorates the app with `tracer` and traces its requests.
 * It keeps a bounded number of spans; while the collector does not respond, it drops them. The last spans
 * are sent when the app closes.
 *
 * @param options `environment`: settings by the names that the SDK reads from the process's environment
 */
export const tracing = fastifyPlugin(
  async (app, { environment }: { environment: Record<string, string> }) => {
    Object.assign(process.env, environment)
    const diagLogger = createDiagLogger(app.log)
    diag.setLogger(diagLogger, DiagLogLevel.WARN)
    const provider = new NodeTracerProvider({
      resource: defaultResource()
        .merge(
          resourceFromAttributes({
            'service.name': APPLICATION.name,
            'service.version': APPLICATION.version,
            'service.instance.id': randomUUID(),
            'process.pid': process.pid,
          }),
        )
        .merge(detectResources({ detectors: [envDetector] })),
      spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
    })
    provider.register()
    app.decorate('tracer', provider.getTracer(APPLICATION.name))
    await app.register(traceRequests)

    app.addHook('onClose', async () => {
      await nextTick() // the last span ends after its store has closed
      const flush = provider.shutdown()
      await withDeadline(flush, TRACES_FLUSH_TIMEOUT_MS, 'the collector does not respond').catch(
        (error) => diagLogger.warn(error.message),
      )
      for (const api of [trace, context, propagation, diag]) api.disable()
    })
  },
  { name: 'tracing' },
)

/** Logs the SDK's complaints, at most one in `WARNING_INTERVAL_MS`. */
function createDiagLogger(logger: FastifyBaseLogger): DiagLogger {
  let silentUntil = 0
  function warn(message: string): void {
    const now = performance.now()
    if (now < silentUntil) return
    silentUntil = now + WARNING_INTERVAL_MS
    logger.warn(`some traces are not sent: ${parseReason(message)}`)
  }
  const ignore = () => {}
  return { error: warn, warn, info: ignore, debug: ignore, verbose: ignore }
}

/** The SDK reports an error as JSON, with its stack. */
function parseReason(message: string): string {
  try {
    const error = JSON.parse(message)
    return error.message || error.code || message
  } catch {
    return message
  }
}
