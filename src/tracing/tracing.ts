import { setImmediate as nextTurn } from 'node:timers/promises'
import { type DiagLogger, DiagLogLevel, diag } from '@opentelemetry/api'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import {
  defaultResource,
  detectResources,
  envDetector,
  resourceFromAttributes,
} from '@opentelemetry/resources'
import { BatchSpanProcessor, NodeTracerProvider } from '@opentelemetry/sdk-trace-node'
import type { Logger } from 'pino'
import type { AppResources } from '../app.ts'
import { withDeadline } from '../deadline.ts'
import { traceRequests } from './trace-requests.ts'
import { traceOrders, traceStore } from './traced-stores.ts'

/** What is left to send at the end must not keep the process from its end. */
const FLUSH_TIMEOUT_MS = 1_000

/** A collector that is down fails every few seconds, which is worth a line now and then. */
const WARN_EVERY_MS = 60_000

/** Traces of this process, on their way to a collector. */
export interface Tracing {
  /** What an app is built on, so that its requests are traced. */
  trace(resources: AppResources): AppResources
  /** Sends what is left, if that goes fast. */
  close(): Promise<void>
}

/**
 * Starts OpenTelemetry's SDK, once in a process. It keeps a bounded number of spans and sends them now
 * and then; while the collector cannot be reached, it drops them.
 *
 * @param environment settings by the names that the SDK knows; the others it finds in the process's
 */
export function startTracing(environment: Record<string, string>, logger: Logger): Tracing {
  Object.assign(process.env, environment)
  const diagLogger = createDiagLogger(logger)
  diag.setLogger(diagLogger, DiagLogLevel.WARN)
  const provider = new NodeTracerProvider({
    resource: defaultResource()
      .merge(resourceFromAttributes({ 'service.name': 'order-once', 'process.pid': process.pid }))
      .merge(detectResources({ detectors: [envDetector] })),
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
  })
  provider.register()
  const tracer = provider.getTracer('order-once')

  return {
    trace: (resources) => ({
      ...resources,
      tracing: traceRequests(tracer),
      orders: traceOrders(resources.orders, tracer),
      idempotencyStore: traceStore(resources.idempotencyStore, tracer),
    }),
    async close() {
      await nextTurn() // what a store did last, its caller hears after the store has been closed
      const flush = provider.shutdown()
      await withDeadline(flush, FLUSH_TIMEOUT_MS, 'the collector does not answer').catch((error) =>
        diagLogger.warn(error.message),
      )
    },
  }
}

/** Passes on what the SDK complains about, if it has not complained lately. */
function createDiagLogger(logger: Logger): DiagLogger {
  let silentUntil = 0
  function warn(message: string): void {
    const now = performance.now()
    if (now < silentUntil) return
    silentUntil = now + WARN_EVERY_MS
    logger.warn(`traces are not sent, or not all of them: ${reasonIn(message)}`)
  }
  const ignore = () => {}
  return { error: warn, warn, info: ignore, debug: ignore, verbose: ignore }
}

/** The SDK reports an error as JSON, with its stack. */
function reasonIn(message: string): string {
  try {
    const error = JSON.parse(message)
    return error.message || error.code || message
  } catch {
    return message
  }
}
