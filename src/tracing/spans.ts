import { type Span, SpanStatusCode, type Tracer } from '@opentelemetry/api'
import { Problem } from '../http/problem.ts'

/** Does work in a span of its own, a child of the request's. */
export async function inSpan<T>(
  tracer: Tracer,
  name: string,
  work: (span: Span) => Promise<T>,
): Promise<T> {
  const span = tracer.startSpan(name)
  try {
    return await work(span)
  } catch (error) {
    noteFailure(span, error as Error)
    throw error
  } finally {
    span.end()
  }
}

/** Notes what kind of error it was; not its message, which may quote a value. */
export function noteFailure(span: Span, error: Error & { code?: string }): void {
  span.setAttribute('error.type', error.code ?? error.name)
  const isRefusal = error instanceof Problem && error.statusCode < 500
  if (!isRefusal) span.setStatus({ code: SpanStatusCode.ERROR })
}
