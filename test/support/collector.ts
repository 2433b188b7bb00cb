/** A collector of traces. */
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { until } from './until.ts'

/** A span as it was received. */
export interface Span {
  name: string
  traceId: string
  spanId: string
  parentSpanId?: string
  /** 0: unset, 1: ok, 2: error */
  status: { code: number; message?: string }
  attributes: Record<string, unknown>
  /** the attributes of the process that it comes from */
  resource: Record<string, unknown>
}

/** Receives traces by OTLP over HTTP, as JSON. */
export interface Collector {
  url: string
  /** the requests so far */
  received: { body: string; headers: IncomingHttpHeaders }[]
  spans(): Span[]
  /** Waits for a request's span that fulfils the condition, until its trace has `size` spans. */
  waitForTrace(isWanted: (request: Span) => boolean, size: number): Promise<Trace>
  close(): void
}

/** The span of a request, and those below it in their order. */
export interface Trace {
  request: Span
  children: Span[]
}

// biome-ignore lint/suspicious/noExplicitAny: as OTLP has it
type Json = any

/** Starts a collector on a free port of 127.0.0.1. @param responds whether it ever does */
export async function startCollector({ responds = true } = {}): Promise<Collector> {
  const received: Collector['received'] = []
  const server = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray()).toString()
    if (request.method !== 'POST' || request.url !== '/v1/traces') {
      response.writeHead(404).end()
      return
    }
    received.push({ body, headers: request.headers })
    if (responds) response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo

  const spans = () => received.flatMap(({ body }) => parseSpans(JSON.parse(body)))
  return {
    url: `http://127.0.0.1:${port}`,
    received,
    spans,
    waitForTrace: (isWanted, size) =>
      until(() => {
        const all = spans()
        const request = all.find(
          (span) => 'http.request.method' in span.attributes && isWanted(span),
        )
        if (!request) return undefined
        const children = all.filter(({ parentSpanId }) => parentSpanId === request.spanId)
        return children.length >= size - 1 && { request, children }
      }),
    close: () => {
      server.close()
      server.closeAllConnections()
    },
  }
}

function parseSpans({ resourceSpans }: Json): Span[] {
  return resourceSpans.flatMap(({ resource, scopeSpans }: Json) =>
    scopeSpans.flatMap(({ spans }: Json) =>
      spans
        .toSorted((a: Json, b: Json) => Number(a.startTimeUnixNano) - Number(b.startTimeUnixNano))
        .map((span: Json) => ({
          ...span,
          attributes: parseAttributes(span.attributes),
          resource: parseAttributes(resource.attributes),
        })),
    ),
  )
}

const parseAttributes = (attributes: Json[]) =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]))
