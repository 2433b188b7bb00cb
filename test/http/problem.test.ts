import { once } from 'node:events'
import { connect } from 'node:net'
import { describe, expect, test } from 'vitest'
import { PROBLEMS } from '../../src/http/problems.ts'
import { get, newKey, ORDER, send, sign } from '../support/client.ts'
import { createGate, delayInserts } from '../support/gate.ts'
import { startService } from '../support/service.ts'
import { until } from '../support/until.ts'

/** Sends bytes as they are and reads until the service closes the connection. */
async function sendRaw(port: number, bytes: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  let answer = ''
  socket.on('data', (chunk) => {
    answer += chunk
  })
  socket.write(bytes)
  await once(socket, 'close')
  return answer
}

describe('a problem document', () => {
  test('is application/problem+json with type, title, status, detail and code', async () => {
    const { port } = await startService()
    const reply = await send(port, { key: null })
    expect(reply.headers['content-type']).toBe('application/problem+json; charset=utf-8')
    expect(reply.json).toEqual({
      type: '/problems/idempotency-key-missing',
      title: 'The Idempotency-Key header is missing',
      status: 400,
      detail: 'Idempotency-Key is required.',
      code: 'idempotency-key-missing',
    })
  })

  test('answers an unknown path with 404', async () => {
    const { port } = await startService()
    const reply = await get(port, '/nowhere?a=1')
    expect(reply).toMatchObject({ status: 404, json: { code: 'not-found' } })
    expect(reply.json.detail).toBe('There is nothing at /nowhere.')
    expect(reply.headers['content-type']).toContain('application/problem+json')
  })

  test.each(['GET', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])(
    'answers %s /orders with 405 and Allow',
    async (method) => {
      const { port } = await startService()
      const reply = await send(port, { method })
      expect(reply).toMatchObject({ status: 405, json: { code: 'method-not-allowed' } })
      expect(reply.headers.allow).toBe('POST')
    },
  )

  test('answers POST /problems/overloaded with 405 and Allow', async () => {
    const { port } = await startService()
    const reply = await send(port, { path: '/problems/overloaded' })
    expect(reply.status).toBe(405)
    expect(reply.headers.allow).toBe('GET, HEAD')
  })

  test.each([
    ['malformed JSON', { body: '{bad' }],
    ['no JSON at all', { headers: { 'content-type': 'text/xml' } }],
    ['a malformed Content-Type', { headers: { 'content-type': 'not a media type' } }],
    ['a body that is too large', { body: ' '.repeat(100_000) }],
  ])('answers 404 and 405 to %s too', async (_name, wrong) => {
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

  test('passes over an expectation that it does not know', async () => {
    const { port } = await startService()
    expect((await send(port, { headers: { expect: 'foo' } })).status).toBe(201)
  })

  test('answers 413 rather than 100 to the announcement of a body that is too large', async () => {
    const { port } = await startService()
    const announce = (length: number) =>
      `POST /orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`
    expect(await sendRaw(port, announce(65_537))).toMatch(/^HTTP\/1\.1 413 /)
    const body = '{}'.padEnd(65_536)
    expect(
      await sendRaw(
        port,
        `${announce(65_536).replace('Expect', 'Connection: close\r\nExpect')}${body}`,
      ),
    ).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 401 /)
  })

  test('does not take garbage behind a request at work for a second request to answer', async () => {
    const gate = createGate()
    const { port } = await startService({
      wrapOrders: delayInserts(gate),
    })
    const key = newKey()
    const body = JSON.stringify(ORDER)
    const answer = sendRaw(
      port,
      `POST /orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nIdempotency-Key: ${key}\r\nX-Signature: ${sign(body)}\r\nContent-Length: ${body.length}\r\n\r\n${body}GARBAGE\r\n\r\n`,
    )
    expect(await answer).toBe('')
    gate.open()
    await until(async () => (await send(port, { key })).headers['idempotency-replayed'] === 'true')
  })

  test('answers a URL that cannot be decoded', async () => {
    const { port } = await startService()
    const reply = await get(port, '/%zz')
    expect(reply).toMatchObject({ status: 400, json: { code: 'bad-request' } })
    expect(reply.headers['content-type']).toContain('application/problem+json')
    expect(reply.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/)
  })

  test.each([
    ['no Host', ''],
    ['two Hosts', 'Host: a\r\nHost: b\r\n'],
  ])('answers %s', async (_name, hosts) => {
    const { port } = await startService()
    const answer = await sendRaw(
      port,
      `GET /problems/overloaded HTTP/1.1\r\n${hosts}Connection: close\r\n\r\n`,
    )
    expect(answer).toMatch(/^HTTP\/1\.1 400 /)
    expect(answer).toContain('"code":"bad-request"')
  })

  test('answers what is not HTTP', async () => {
    const { port } = await startService()
    const answer = await sendRaw(port, 'HELO there\r\n\r\n')
    expect(answer).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
    expect(answer).toContain('application/problem+json')
    expect(JSON.parse(answer.split('\r\n\r\n')[1] ?? '')).toMatchObject({ code: 'bad-request' })
  })

  test('answers headers that are too large', async () => {
    const { port } = await startService()
    const answer = await sendRaw(
      port,
      `GET / HTTP/1.1\r\nHost: a\r\nA: ${'a'.repeat(20_000)}\r\n\r\n`,
    )
    expect(answer).toMatch(/^HTTP\/1\.1 431 /)
    expect(answer).toContain('headers-too-large')
  })

  test('tells nothing of an unexpected error: no SQL, no stack trace, no value', async () => {
    const { port, database, logLines } = await startService()
    await database.sql`alter table orders rename to elsewhere`
    const key = newKey()
    const reply = await send(port, { key })
    expect(reply.status).toBe(500)
    expect(reply.json).toEqual({
      type: '/problems/internal-error',
      title: 'The service failed',
      status: 500,
      detail: 'The request could not be completed. It is safe to repeat it.',
      code: 'internal-error',
    })
    const log = JSON.stringify(logLines)
    expect(log).toContain('relation \\"public.orders\\" does not exist')
    expect(log).not.toContain(key)

    await database.sql`alter table elsewhere rename to orders`
    expect((await send(port, { key })).status).toBe(201)
  })
})

describe('GET /problems/<code>', () => {
  const codes = Object.keys(PROBLEMS) as (keyof typeof PROBLEMS)[]

  test.each(codes)('explains %s to a program and to a person', async (code) => {
    const { port } = await startService()
    const { status, title, explanation } = PROBLEMS[code]
    const json = await get(port, `/problems/${code}`, 'application/json')
    expect(json).toMatchObject({
      status: 200,
      json: { type: `/problems/${code}`, code, status, title, explanation },
    })
    const html = await get(port, `/problems/${code}`, 'text/html,application/xhtml+xml,*/*;q=0.8')
    expect(html.headers['content-type']).toBe('text/html; charset=utf-8')
    expect(html.text).toContain(title)
    expect(html.text).toContain(explanation)
  })

  test('answers JSON where HTML is not asked for, and 404 for an unknown code', async () => {
    const { port } = await startService()
    expect((await get(port, '/problems/overloaded')).json.code).toBe('overloaded')
    expect((await get(port, '/problems/overloaded', '*/*')).json.code).toBe('overloaded')
    expect(await get(port, '/problems/constructor')).toMatchObject({
      status: 404,
      json: { code: 'not-found' },
    })
  })

  test('allows its page no script, no frame and no other host', async () => {
    const { port } = await startService()
    const { headers } = await get(port, '/problems/overloaded', 'text/html')
    expect(headers['content-security-policy']).toBe(
      "default-src 'none';style-src 'self';base-uri 'none';form-action 'none';frame-ancestors 'none'",
    )
    expect(headers['x-content-type-options']).toBe('nosniff')
  })

  test('needs no signature and is not limited', async () => {
    const { port } = await startService({ env: { RATE_LIMIT_MAX: '1' } })
    for (let i = 0; i < 3; i++) expect((await get(port, '/problems/overloaded')).status).toBe(200)
  })
})
