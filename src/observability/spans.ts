/** Spans of OpenTelemetry. */
import { type Span, SpanStatusCode, type Tracer } from '@opentelemetry/api'
import { Problem } from '@order-once/idempotency'

/** Runs work in a span of its own, a child of the request's. */
export async function withSpan<T>(
  tracer: Tracer,
  name: string,
  work: (span: Span) => T | Promise<T>,
): Promise<T> {
  const span = tracer.startSpan(name)
  try {
    return await work(span)
  } catch (error) {
    recordFailure(span, error)
    throw error
  } finally {
    span.end()
  }
}

/** Records the kind of the error, not its message, which may quote a value. */
function recordFailure(span: Span, error: unknown): void {
  const { code, name } = error as Error & { code?: string }
  span.setAttribute('error.type', code ?? name)
  const isRefusal = error instanceof Problem && error.statusCode < 500
  if (!isRefusal) span.setStatus({ code: SpanStatusCode.ERROR })
}
