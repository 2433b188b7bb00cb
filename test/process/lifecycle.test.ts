import { once } from 'node:events'
import { Agent } from 'node:http'
import { connect } from 'node:net'
import { describe, expect, test } from 'vitest'
import { blockInserts } from '../support/blocked-inserts.ts'
import { newKey, ORDER, open, SECRET, send, sign } from '../support/client.ts'
import { spawnService, startProcess } from '../support/process.ts'
import { createEmptyDatabase, emptyDatabase, emptyRedisSpace, hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

describe.each(['SIGTERM', 'SIGINT'] as const)('on %s', (signal) => {
  test('requests at work are answered, new ones refused, and the process ends with 0', async () => {
    const { url, isBlocking, unblock } = await blockInserts()
    const service = await startProcess({ DATABASE_URL: url })
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const atWork = send(service.port, { agent })
    await until(isBlocking)

    const pipelined = send(service.port, { agent }) // waits for the connection
    service.child.kill(signal)
    await until(() => service.stdout().includes(`closing on ${signal}`))
    await until(() =>
      send(service.port).then(
        () => false,
        (error) => error.code === 'ECONNREFUSED',
      ),
    )
    await unblock()

    const answer = await atWork
    expect(answer.status).toBe(201)
    expect(answer.headers.connection).toBe('close')
    await expect(pipelined).rejects.toThrow('ECONNREFUSED')
    expect(await service.ended).toBe(0)
    expect(service.stdout()).toContain('"closed"')
  })

  test('a request that was still arriving is answered 503 with Retry-After', async () => {
    const { url, isBlocking, unblock } = await blockInserts()
    const service = await startProcess({ DATABASE_URL: url })
    const socket = connect(service.port, '127.0.0.1')
    socket.write('GET /problems/overloaded HTTP/1.1\r\nHost: a\r\n')
    const atWork = send(service.port)
    await until(isBlocking)
    service.child.kill(signal)
    await until(() => service.stdout().includes(`closing on ${signal}`))
    socket.write('\r\n')
    const answer = Buffer.concat(await socket.toArray()).toString()
    expect(answer).toMatch(/^HTTP\/1\.1 503 /)
    expect(answer).toMatch(/\r\nretry-after: 1\r\n/i)
    expect(answer).toMatch(/\r\nconnection: close\r\n/i)
    expect(answer).toContain('"code":"shutting-down"')
    await unblock()
    expect((await atWork).status).toBe(201)
    expect(await service.ended).toBe(0)
  })

  test.each([
    ['an idle connection', 'GET /problems/overloaded HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['a connection on which nothing was ever sent', ''],
    ['a connection that stopped in the middle of its headers', 'GET / HTTP/1.1\r\nHos'],
  ])('%s does not hold up the end', async (_name, sent) => {
    const { url } = await emptyDatabase()
    const service = await startProcess({ DATABASE_URL: url })
    const socket = connect(service.port, '127.0.0.1')
    socket.on('error', () => {})
    await once(socket, 'connect')
    socket.write(sent)
    // Whatever was sent before this has arrived.
    expect((await send(service.port)).status).toBe(201)
    expect(await service.stop(signal)).toBe(0)
    expect(service.stdout()).toContain('"closed"')
  })

  test('a second one ends the process at once, without waiting for requests', async () => {
    const { url, isBlocking, unblock } = await blockInserts()
    const service = await startProcess({ DATABASE_URL: url })
    const atWork = send(service.port)
    atWork.catch(() => {})
    await until(isBlocking)
    service.child.kill(signal)
    await until(() => service.stdout().includes(`closing on ${signal}`))
    expect(await service.stop(signal)).toBe(1)
    await expect(atWork).rejects.toThrow()
    await unblock()
  })
})

test('four instances that start together on an empty database all come up', async () => {
  const DATABASE_URL = await createEmptyDatabase()
  const services = await Promise.all(
    Array.from({ length: 4 }, () => startProcess({ DATABASE_URL })),
  )
  const key = newKey()
  const replies = await Promise.all(services.map(({ port }) => send(port, { key })))
  const ids = replies.filter(({ status }) => status === 201).map(({ json }) => json.order.id)
  expect(new Set(ids).size).toBe(1)
})

test('a Postgres that does not answer ends the start with one line, without its password', async () => {
  const { url } = await emptyDatabase()
  const wrong = new URL(url)
  wrong.password = 'not-the-password'
  const service = await spawnService({ DATABASE_URL: wrong.href })
  expect(await service.ended).toBe(1)
  expect(service.stderr()).toMatch(
    /^order-once cannot start: Postgres at 127\.0\.0\.1:\d+\/test_\w+ does not respond: .*\n$/,
  )
  expect(service.stderr()).not.toContain('not-the-password')
})

test('a Redis that does not answer is no obstacle: orders are made, once', async () => {
  const { url } = await emptyDatabase()
  const service = await startProcess({ DATABASE_URL: url, REDIS_URL: 'redis://127.0.0.1:1' })
  expect(service.stdout()).toContain('Redis does not respond; orders go on without it')
  const key = newKey()
  const first = await send(service.port, { key })
  expect(first.status).toBe(201)
  expect(await send(service.port, { key })).toMatchObject({ status: 201, text: first.text })
})

describe('the log', () => {
  test('is one JSON line a request, with what a person asks first and nothing secret', async () => {
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

  test('has a line for a request whose client went away before its answer', async () => {
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

  test('does not take over a malformed X-Request-Id', async () => {
    const { url } = await emptyDatabase()
    const service = await startProcess({ DATABASE_URL: url })
    for (const id of ['', 'two words', '<script>', 'x'.repeat(129)]) {
      const { headers } = await send(service.port, { headers: { 'x-request-id': id } })
      expect(headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/)
    }
  })
})
