import { QueueFullError } from '@order-once/idempotency/batching'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { isRetryable, PROBLEMS } from '../../src/http/problems.ts'
import { get, newKey, send } from '../support/client.ts'
import { createGate, delayInserts } from '../support/gate.ts'
import { formatOrder, openSocket, type RawResponse } from '../support/raw-socket.ts'
import { startService } from '../support/service.ts'
import { until } from '../support/until.ts'

/** Sends bytes and waits until the service closes the connection. @returns its responses */
async function sendBytes(port: number, bytes: string): Promise<RawResponse[]> {
  const client = openSocket(port, bytes)
  await until(client.isClosed)
  return client.responses()
}

describe('a problem document', () => {
  test('is application/problem+json, with the id of the request and whether to repeat it', async () => {
    const { port } = await startService()
    const reply = await send(port, { key: null })
    expect(reply.headers['content-type']).toBe('application/problem+json; charset=utf-8')
    expect(reply.json).toEqual({
      type: '/problems/idempotency-key-missing',
      title: 'The Idempotency-Key header is missing',
      status: 400,
      detail: 'Idempotency-Key is required.',
      code: 'idempotency-key-missing',
      instance: `urn:uuid:${reply.headers['x-request-id']}`,
      retryable: false,
    })
  })

  test('has no instance if the id of the request is no UUID', async () => {
    const { port } = await startService()
    const headers = { 'x-request-id': 'order-1' }
    const reply = await send(port, { key: null, headers })
    expect(reply.headers['x-request-id']).toBe('order-1')
    expect(reply.json).not.toHaveProperty('instance')
    const id = '0A4F2C9E-6D1B-4F7E-9C55-3B8F0F6D2A71'
    const other = await send(port, { key: null, headers: { 'x-request-id': id } })
    expect(other.json.instance).toBe(`urn:uuid:${id}`)
  })

  test('says for each code whether the same request may succeed later', async () => {
    const codes = Object.entries(PROBLEMS)
      .map(([code, { status }]) => ({ code, statusCode: status }))
      .filter(isRetryable)
      .map(({ code }) => code)
    expect(codes.sort()).toEqual([
      ...['database-unavailable', 'internal-error', 'overloaded', 'rate-limit-exceeded'],
      ...['request-in-progress', 'request-timeout', 'shutting-down'],
    ])
  })

  test('is 503 if the queue of inserts is full, which is no error in the log', async () => {
    const { port, logLines } = await startService({
      wrapOrders: (orders) => ({
        ...orders,
        insertOnce: async () => {
          throw new QueueFullError('the queue is full')
        },
      }),
    })
    const reply = await send(port)
    expect(reply).toMatchObject({ status: 503, json: { code: 'overloaded' } })
    expect(logLines.filter(({ level }) => Number(level) >= 40)).toEqual([])
  })

  test('refuses an unknown path with 404 and names it', async () => {
    const { port } = await startService()
    const reply = await get(port, '/nowhere?a=1')
    expect(reply).toMatchObject({ status: 404, json: { code: 'not-found' } })
    expect(reply.json.detail).toBe('There is nothing at /nowhere.')
    expect(reply.headers['content-type']).toContain('application/problem+json')
  })

  test.each(['PUT', 'PATCH', 'DELETE', 'OPTIONS'])(
    'refuses %s /orders with 405 and Allow',
    async (method) => {
      const { port } = await startService()
      const reply = await send(port, { method })
      expect(reply).toMatchObject({ status: 405, json: { code: 'method-not-allowed' } })
      expect(reply.headers.allow).toBe('GET, HEAD, POST')
    },
  )

  test('refuses POST /problems/overloaded with 405 and Allow', async () => {
    const { port } = await startService()
    const reply = await send(port, { path: '/problems/overloaded' })
    expect(reply.status).toBe(405)
    expect(reply.headers.allow).toBe('GET, HEAD')
  })

  test.each([
    ['malformed JSON', { body: '{bad' }],
    ['another media type', { headers: { 'content-type': 'text/xml' } }],
    ['a malformed Content-Type', { headers: { 'content-type': 'not a media type' } }],
    ['a body that is too large', { body: ' '.repeat(100_000) }],
  ])('is 404 or 405, whatever the body: %s', async (_name, wrong) => {
    const { port } = await startService()
    expect(await send(port, { path: '/nope', ...wrong })).toMatchObject({
      status: 404,
      json: { code: 'not-found' },
    })
    expect(await send(port, { method: 'PUT', ...wrong })).toMatchObject({
      status: 405,
      json: { code: 'method-not-allowed' },
    })
  })

  test('is 404 without parsing the body', async () => {
    const { port } = await startService()
    const body = '{"not_an_order":true}'
    const parse = vi.spyOn(JSON, 'parse')
    onTestFinished(() => parse.mockRestore())
    expect((await send(port, { path: '/nope', body })).status).toBe(404)
    expect(parse).not.toHaveBeenCalledWith(body)
  })

  test('refuses a URL that cannot be decoded with 400', async () => {
    const { port } = await startService()
    const reply = await get(port, '/%zz')
    expect(reply).toMatchObject({ status: 400, json: { code: 'bad-request' } })
    expect(reply.headers['content-type']).toContain('application/problem+json')
    expect(reply.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/)
  })

  test.each([
    ['no Host', 'GET / HTTP/1.1\r\nConnection: close\r\n\r\n', 400, 'bad-request'],
    [
      'two Hosts',
      'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: b\r\nConnection: close\r\n\r\n',
      400,
      'bad-request',
    ],
    ['bytes that are not HTTP', 'HELO there\r\n\r\n', 400, 'bad-request'],
    [
      'headers that are too large',
      `GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: ${'a'.repeat(20_000)}\r\n\r\n`,
      431,
      'headers-too-large',
    ],
  ])('refuses %s', async (_name, bytes, status, code) => {
    const { port } = await startService()
    const [response, ...others] = await sendBytes(port, bytes)
    expect(response?.status).toBe(status)
    expect(response?.headers['content-type']).toContain('application/problem+json')
    expect(JSON.parse(response?.text ?? '')).toMatchObject({ status, code })
    expect(others).toEqual([])
  })

  test('is not sent for bytes that follow a request in flight: its client would take it for the response', async () => {
    const gate = createGate()
    const { port } = await startService({ wrapOrders: delayInserts(gate) })
    const key = newKey()
    const bytes = `${formatOrder({ key })}GARBAGE\r\n\r\n`
    expect(await sendBytes(port, bytes)).toEqual([])
    gate.open()
    await until(async () => (await send(port, { key })).headers['idempotency-replayed'] === 'true')
  })

  test('of an unexpected error reveals no SQL, no stack trace and no value', async () => {
    let bug: Error | undefined = new TypeError('a bug, as in insert into orders')
    const { port, logLines } = await startService({
      wrapOrders: (orders) => ({
        ...orders,
        insertOnce: async (order) => {
          if (bug) throw bug
          return orders.insertOnce(order)
        },
      }),
    })
    const key = newKey()
    const reply = await send(port, { key })
    bug = undefined
    expect(reply.status).toBe(500)
    expect(reply.json).toEqual({
      type: '/problems/internal-error',
      title: 'The service failed',
      status: 500,
      detail: 'The request could not be completed. It is safe to repeat it.',
      code: 'internal-error',
      instance: `urn:uuid:${reply.headers['x-request-id']}`,
      retryable: true,
    })
    const log = JSON.stringify(logLines)
    expect(log).toContain('a bug, as in insert into orders')
    expect(log).not.toContain(key)
    expect((await send(port, { key })).status).toBe(201)
  })
})
