import { once } from 'node:events'
import { Agent } from 'node:http'
import { describe, expect, test } from 'vitest'
import { blockInserts } from '../support/blocked-inserts.ts'
import { newKey, ORDER, open, SECRET, send, sign } from '../support/client.ts'
import { spawnService, startProcess } from '../support/process.ts'
import { openSocket } from '../support/raw-socket.ts'
import { createEmptyDatabase, emptyDatabase, emptyRedisSpace, hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

describe.each(['SIGTERM', 'SIGINT'] as const)('on %s', (signal) => {
  test('requests in flight get their response, new ones are refused, and the exit code is 0', async () => {
    const { url, isBlocking, unblock } = await blockInserts()
    const service = await startProcess({ DATABASE_URL: url })
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const order = send(service.port, { agent })
    await until(isBlocking)

    // Waits for the connection. (Expected at once: it may be refused before the test waits for it.)
    const refused = expect(send(service.port, { agent })).rejects.toThrow('ECONNREFUSED')
    service.child.kill(signal)
    await until(() => service.stdout().includes(`closing on ${signal}`))
    await until(() =>
      send(service.port).then(
        () => false,
        (error) => error.code === 'ECONNREFUSED',
      ),
    )
    await unblock()

    const response = await order
    expect(response.status).toBe(201)
    expect(response.headers.connection).toBe('close')
    await refused
    expect(await service.ended).toBe(0)
    expect(service.stdout()).toContain('"closed"')
  })

  test('a request that arrives meanwhile on an open connection is refused with 503 and Retry-After', async () => {
    const { url, isBlocking, unblock } = await blockInserts()
    const service = await startProcess({ DATABASE_URL: url })
    const arriving = openSocket(service.port, 'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n')
    const order = send(service.port)
    await until(isBlocking)
    service.child.kill(signal)
    await until(() => service.stdout().includes(`closing on ${signal}`))
    arriving.socket.write('\r\n')
    await until(arriving.isClosed)
    const [response] = arriving.responses()
    expect(response).toMatchObject({
      status: 503,
      headers: { 'retry-after': '1', connection: 'close' },
    })
    expect(JSON.parse(response?.text ?? '')).toMatchObject({ code: 'shutting-down' })
    await unblock()
    expect((await order).status).toBe(201)
    expect(await service.ended).toBe(0)
  })

  test.each([
    ['an idle connection', 'GET /problems/overloaded HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'],
    ['a connection on which nothing was ever sent', ''],
    ['a connection with incomplete headers', 'GET / HTTP/1.1\r\nHos'],
  ])('%s does not delay the end', async (_name, sent) => {
    const { url } = await emptyDatabase()
    const service = await startProcess({ DATABASE_URL: url })
    const client = openSocket(service.port, sent)
    await once(client.socket, 'connect')
    // The service has read what was sent before this.
    expect((await send(service.port)).status).toBe(201)
    expect(await service.stop(signal)).toBe(0)
    expect(service.stdout()).toContain('"closed"')
  })

  test('a second signal ends the process at once, without waiting for requests', async () => {
    const { url, isBlocking, unblock } = await blockInserts()
    const service = await startProcess({ DATABASE_URL: url })
    const order = send(service.port)
    order.catch(() => {})
    await until(isBlocking)
    service.child.kill(signal)
    await until(() => service.stdout().includes(`closing on ${signal}`))
    expect(await service.stop(signal)).toBe(1)
    await expect(order).rejects.toThrow()
    await unblock()
  })
})

test('four instances that start at the same time on an empty database all serve requests', async () => {
  const DATABASE_URL = await createEmptyDatabase()
  const services = await Promise.all(
    Array.from({ length: 4 }, () => startProcess({ DATABASE_URL })),
  )
  const key = newKey()
  const replies = await Promise.all(services.map(({ port }) => send(port, { key })))
  const ids = replies.filter(({ status }) => status === 201).map(({ json }) => json.order.id)
  expect(new Set(ids).size).toBe(1)
})

test('a Postgres that refuses the password stops the start with one line, without the password', async () => {
  const { url } = await emptyDatabase()
  const wrong = new URL(url)
  wrong.password = 'not-the-password'
  const service = await spawnService({ DATABASE_URL: wrong.href })
  expect(await service.ended).toBe(1)
  expect(service.stderr()).toMatch(
    /^order-once cannot start: Postgres at 127\.0\.0\.1:\d+\/test_\w+ cannot be used: .*\n$/,
  )
  expect(service.stderr()).not.toContain('not-the-password')
})

test('without a Redis that responds, orders are created once', async () => {
  const { url } = await emptyDatabase()
  const service = await startProcess({ DATABASE_URL: url, REDIS_URL: 'redis://127.0.0.1:1' })
  expect(service.stdout()).toContain('Redis does not respond; orders go on without it')
  const key = newKey()
  const first = await send(service.port, { key })
  expect(first.status).toBe(201)
  expect(await send(service.port, { key })).toMatchObject({ status: 201, text: first.text })
})

describe('the log', () => {
  test('has one JSON line a request, without any value that was sent', async () => {
    const { url } = await emptyDatabase()
    const redis = hasRedis ? { REDIS_URL: (await emptyRedisSpace()).url } : {}
    const service = await startProcess({ DATABASE_URL: url, ...redis })
    const key = newKey()
    const first = await send(service.port, { key, headers: { 'x-request-id': 'first-1' } })
    const repeat = await send(service.port, { key })
    await send(service.port, { key, body: { ...ORDER, amount: 7 } })
    await send(service.port, { key: null })
    await service.stop()

    expect(first.headers['x-request-id']).toBe('first-1')
    const lines = service.logLines().filter(({ msg }) => msg === 'request')
    const common = { method: 'POST', route: '/orders', duration_ms: expect.any(Number) }
    expect(lines).toMatchObject([
      { ...common, reqId: 'first-1', status: 201, idempotency: 'new' },
      {
        ...common,
        reqId: repeat.headers['x-request-id'],
        status: 201,
        idempotency: 'replayed_cache',
      },
      { ...common, status: 409, idempotency: 'mismatch' },
      { ...common, status: 400 },
    ])
    const log = service.stdout() + service.stderr()
    for (const secret of [key, SECRET, sign(JSON.stringify(ORDER)), 'user-1', 'book']) {
      expect(log).not.toContain(secret)
    }
  })

  test('has the message of an error of Postgres, but not the row that it quotes', async () => {
    const { url, sql } = await emptyDatabase()
    await sql`alter table orders add constraint no_books check (item <> 'book')`
    const service = await startProcess({ DATABASE_URL: url })
    const reply = await send(service.port)
    await sql`alter table orders drop constraint no_books`
    expect(reply).toMatchObject({ status: 500, json: { code: 'internal-error' } })
    await service.stop()
    const line = service.logLines().find(({ msg }) => msg === 'the request failed')
    expect(line?.err).toMatchObject({
      type: 'PostgresError',
      code: '23514',
      message: expect.stringContaining('violates check constraint "no_books"'),
    })
    expect(service.stdout()).not.toContain('user-1')
  })

  test('has a line for a request whose client disconnected before its response', async () => {
    const { url, isBlocking, unblock } = await blockInserts()
    const service = await startProcess({ DATABASE_URL: url })
    const outgoing = open(service.port, { headers: { 'x-request-id': 'gone-1' } })
    outgoing.on('error', () => {})
    await until(isBlocking)
    outgoing.destroy()
    const lines = () => service.logLines().filter(({ reqId }) => reqId === 'gone-1')
    await until(() => lines().length > 0)
    await unblock()
    await service.stop()
    expect(lines()).toMatchObject([
      { msg: 'request', method: 'POST', route: '/orders', aborted: true, idempotency: 'new' },
    ])
  })

  test('does not contain a malformed X-Request-Id', async () => {
    const { url } = await emptyDatabase()
    const service = await startProcess({ DATABASE_URL: url })
    for (const id of ['', 'two words', '<script>', 'x'.repeat(129)]) {
      const { headers } = await send(service.port, { headers: { 'x-request-id': id } })
      expect(headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/)
    }
  })
})
