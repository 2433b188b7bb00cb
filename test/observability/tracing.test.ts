import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { newKey, ORDER, send, sendAll, sign } from '../support/client.ts'
import { type Collector, type Span, startCollector } from '../support/collector.ts'
import { startService, type Variation } from '../support/service.ts'
import { hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

let collector: Collector

beforeAll(async () => {
  collector = await startCollector()
  process.env.OTEL_BSP_SCHEDULE_DELAY = '10' // ms; the SDK reads it there
})

afterAll(() => collector.close())

const startTraced = ({ env, ...variation }: Variation & { redis?: boolean } = {}) =>
  startService({ ...variation, env: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, ...env } })

/** Creates the ids of a trace, and the headers of a request that belongs to it. */
function createTrace() {
  const traceId = randomBytes(16).toString('hex')
  const parentId = randomBytes(8).toString('hex')
  return { traceId, parentId, headers: { traceparent: `00-${traceId}-${parentId}-01` } }
}

/** Waits until the trace of a request has `size` spans. */
const waitForTrace = (traceId: string, size: number) =>
  collector.waitForTrace((request) => request.traceId === traceId, size)

const getNames = (spans: Span[]) => spans.map(({ name }) => name)

describe.each(hasRedis ? ['memory', 'Redis'] : ['memory'])('with records in %s', (kind) => {
  const redis = kind === 'Redis'

  test('a new order has a span for each of its steps, below that of its request', async () => {
    const { port } = await startTraced({ redis })
    const { traceId, headers } = createTrace()
    await send(port, { headers })
    const { request, children } = await waitForTrace(traceId, 4)
    expect(request.name).toBe('POST /orders')
    expect(getNames(children)).toEqual(['claim', 'insert', 'complete'])
    expect(children.every((span) => span.traceId === traceId)).toBe(true)
  })

  test('a replay has no span of an insert', async () => {
    const { port } = await startTraced({ redis })
    const key = newKey()
    await send(port, { key })
    const { traceId, headers } = createTrace()
    await send(port, { key, headers })
    const { request, children } = await waitForTrace(traceId, 2)
    expect(getNames(children)).toEqual(['claim'])
    expect(request.attributes['idempotency.outcome']).toBe('replayed_cache')
  })
})

test('a request continues the trace that its traceparent names', async () => {
  const { port } = await startTraced()
  const { traceId, parentId, headers } = createTrace()
  await send(port, { headers })
  const { request } = await waitForTrace(traceId, 4)
  expect(request.parentSpanId).toBe(parentId)
})

test('a request that its client does not sample is not traced', async () => {
  const { port } = await startTraced()
  const unsampled = createTrace()
  await send(port, { headers: { traceparent: unsampled.headers.traceparent.replace(/1$/, '0') } })
  const { traceId, headers } = createTrace()
  await send(port, { headers })
  await waitForTrace(traceId, 4)
  expect(collector.spans().some((span) => span.traceId === unsampled.traceId)).toBe(false)
})

test('orders of one insert have a span of it each, in their own traces', async () => {
  const { port } = await startTraced()
  const traces = Array.from({ length: 20 }, createTrace)
  await sendAll(20, (i) => send(port, { headers: traces[i]?.headers ?? {} }))
  for (const { traceId } of traces) {
    const { children } = await waitForTrace(traceId, 4)
    expect(getNames(children)).toEqual(['claim', 'insert', 'complete'])
  }
})

test('the log line of a request has the ids of its trace and span', async () => {
  const { port, logLines } = await startTraced()
  const { traceId, headers } = createTrace()
  await send(port, { headers })
  const { request } = await waitForTrace(traceId, 4)
  const line = await until(() => logLines.find(({ msg }) => msg === 'request'))
  expect(line).toMatchObject({ trace_id: traceId, span_id: request.spanId })
})

test('without traces, a log line has no such ids', async () => {
  const { port, logLines } = await startService()
  await send(port, { headers: createTrace().headers })
  const line = await until(() => logLines.find(({ msg }) => msg === 'request'))
  expect(line).not.toHaveProperty('trace_id')
})

test('spans have route, status and outcomes, but no value of the request', async () => {
  const { port } = await startTraced()
  const body = { ...ORDER, user_id: 'user-of-a-trace', item: 'item-of-a-trace' }
  const { traceId, headers } = createTrace()
  const key = newKey()
  await send(port, { key, body, headers, path: '/orders?token=of-a-trace' })
  const { request, children } = await waitForTrace(traceId, 4)
  expect(request).toMatchObject({
    status: { code: 1 },
    attributes: {
      'http.route': '/orders',
      'url.path': '/orders',
      'http.response.status_code': 201,
      'client.id': 'default',
      'idempotency.outcome': 'new',
    },
  })
  const [claim, insert] = children
  expect(claim?.attributes).toEqual({ 'idempotency.claim': 'new' })
  expect(insert?.attributes).toEqual({ 'order.inserted': true })
  const sent = JSON.stringify([request, ...children])
  for (const secret of [key, 'of-a-trace', sign(JSON.stringify(body))]) {
    expect(sent).not.toContain(secret)
  }
})

test('a refusal is not an error', async () => {
  const { port } = await startTraced({ env: { RATE_LIMIT_MAX: '1' } })
  await send(port)
  const unsigned = createTrace()
  await send(port, { signature: null, headers: unsigned.headers })
  const limited = createTrace()
  await send(port, { headers: limited.headers })

  for (const [{ traceId }, status] of [
    [unsigned, 401],
    [limited, 429],
  ] as const) {
    const { request } = await waitForTrace(traceId, 1)
    expect(request).toMatchObject({
      status: { code: 1 },
      attributes: { 'http.response.status_code': status },
    })
  }
})

test('a failure is an error of its step and of its request, without its message', async () => {
  const failure = Object.assign(new Error('key-001 is too much'), { code: '54000' })
  const { port } = await startTraced({
    wrapOrders: (orders) => ({ ...orders, insertOnce: () => Promise.reject(failure) }),
  })
  const { traceId, headers } = createTrace()
  expect(await send(port, { headers })).toMatchObject({ status: 500 })
  const { request, children } = await waitForTrace(traceId, 4)
  expect(request.status).toEqual({ code: 2 })
  const insert = children.find(({ name }) => name === 'insert')
  expect(insert).toMatchObject({ attributes: { 'error.type': '54000' } })
  expect(insert?.status).toEqual({ code: 2 })
})

test('probes are not traced; unknown paths are, without the path in the name', async () => {
  const { port } = await startTraced()
  const probe = createTrace()
  await send(port, { method: 'GET', path: '/health/live', headers: probe.headers })
  const unknown = createTrace()
  await send(port, { method: 'GET', path: '/unknown', headers: unknown.headers })
  const { request } = await waitForTrace(unknown.traceId, 2)
  expect(request).toMatchObject({ name: 'GET', attributes: { 'http.response.status_code': 404 } })
  expect(collector.spans().some(({ traceId }) => traceId === probe.traceId)).toBe(false)
})
