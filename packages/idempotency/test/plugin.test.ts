import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import type { FastifyInstance } from 'fastify'
import { describe, expect, onTestFinished, test } from 'vitest'
import { freePort } from '../../../src/stores/embedded/free-port.ts'
import { createGate } from '../../../test/support/gate.ts'
import { until } from '../../../test/support/until.ts'
import { ForeignRecordError, type IdempotencyStore } from '../src/index.ts'
import { createApp, memoryStore, post } from './support/app.ts'

describe('the idempotency plugin', () => {
  test('runs a handler once per key, and replays its status, headers and bytes', async () => {
    const { app, runs } = await createApp((_request, reply) =>
      reply
        .code(202)
        .headers({ location: '/things/1', link: ['<a>', '<b>'], etag: '"1"', 'x-own': 'own' })
        .send({ ran: true }),
    )
    const first = await post(app)
    const repeat = await post(app)
    expect(runs()).toBe(1)
    expect(repeat.statusCode).toBe(202)
    expect(repeat.body).toBe(first.body)
    for (const name of ['content-type', 'location', 'link', 'etag']) {
      expect(repeat.headers[name]).toEqual(first.headers[name])
    }
    expect(first.headers['idempotency-replayed']).toBeUndefined()
    expect(repeat.headers['idempotency-replayed']).toBe('true')
    expect(repeat.headers['x-own']).toBeUndefined()
  })

  test('replays the headers that its store keeps', async () => {
    const { app } = await createApp(
      (_request, reply) => reply.header('X-Own', 'own').send('done'),
      { store: memoryStore({ replayedHeaders: ['X-Own'] }) },
    )
    await post(app)
    expect((await post(app)).headers['x-own']).toBe('own')
  })

  test.each([
    'Set-Cookie',
    'date',
    'Connection',
    'transfer-encoding',
    'X-RateLimit-Remaining',
    'RateLimit-Reset',
    'Retry-After',
  ])('never replays %s: it is an error in the options of a store', (name) => {
    expect(() => memoryStore({ replayedHeaders: [name] })).toThrow(
      `the header ${name.toLowerCase()} must not be replayed`,
    )
  })

  test('does not replay a cookie', async () => {
    const { app } = await createApp((_request, reply) =>
      reply.header('set-cookie', 'a=b').send('x'),
    )
    expect((await post(app)).headers['set-cookie']).toBe('a=b')
    expect((await post(app)).headers['set-cookie']).toBeUndefined()
  })

  test('replays the same bytes', async () => {
    const bytes = Buffer.from([0x00, 0xff, 0xc3, 0x28])
    const { app, runs } = await createApp((_request, reply) => reply.send(bytes))
    expect((await post(app)).rawPayload).toEqual(bytes)
    expect((await post(app)).rawPayload).toEqual(bytes)
    expect(runs()).toBe(1)
  })

  test('replays a response without a body', async () => {
    const { app, runs } = await createApp((_request, reply) => reply.code(204).send())
    await post(app)
    expect(await post(app)).toMatchObject({ statusCode: 204, body: '' })
    expect(runs()).toBe(1)
  })

  test('replays an encoded body with its Content-Encoding', async () => {
    const { app } = await createApp((_request, reply) =>
      reply.header('content-encoding', 'gzip').send(Buffer.from([0x1f, 0x8b])),
    )
    await post(app)
    expect((await post(app)).headers['content-encoding']).toBe('gzip')
  })

  test('does not change the errors of its application', async () => {
    const { app } = await createApp(() => {
      throw Object.assign(new Error('Pay first.'), { statusCode: 402 })
    })
    expect((await post(app)).json()).toEqual({
      statusCode: 402,
      error: 'Payment Required',
      message: 'Pay first.',
    })
  })

  test('refuses another query under the key, and a body without canonical form', async () => {
    const { app } = await createApp(() => 'done')
    await post(app)
    const headers = { 'idempotency-key': 'key' }
    const url = '/things/1?a=2'
    const other = await app.inject({ method: 'POST', url, payload: { a: 1 }, headers })
    expect(other.json().code).toBe('idempotency-key-reused')
    const infinite = await app.inject({
      method: 'POST',
      url: '/things/1',
      payload: '{"a":1e400}',
      headers: { ...headers, 'content-type': 'application/json' },
    })
    expect(infinite).toMatchObject({ statusCode: 400 })
  })

  test('refuses another body, another parameter and another route under the key', async () => {
    const { app, runs } = await createApp(() => 'done')
    await post(app)
    expect((await post(app, { a: 2 })).json().code).toBe('idempotency-key-reused')
    for (const url of ['/things/2', '/others/1']) {
      const reply = await app.inject({
        method: 'POST',
        url,
        payload: { a: 1 },
        headers: { 'idempotency-key': 'key' },
      })
      expect(reply.statusCode).toBe(409)
      expect(reply.json().code).toBe('idempotency-key-reused')
    }
    expect((await post(app)).headers['idempotency-replayed']).toBe('true')
    expect(runs()).toBe(1)
  })

  test('compares requests by the fingerprint of its options', async () => {
    const { app, runs } = await createApp(() => 'done', {
      fingerprint: ({ body }) => String((body as { a: number }).a),
    })
    await post(app, { a: 1, at: 1 })
    expect((await post(app, { a: 1, at: 2 })).headers['idempotency-replayed']).toBe('true')
    expect((await post(app, { a: 2 })).statusCode).toBe(409)
    expect(runs()).toBe(1)
  })

  test('does not protect other methods', async () => {
    const { app, runs } = await createApp(() => 'done')
    for (const method of ['GET', 'PUT', 'PUT'] as const) {
      expect((await app.inject({ method, url: '/things/1' })).statusCode).toBe(200)
    }
    expect(runs()).toBe(3)
  })

  test('protects the methods of its options', async () => {
    const { app, runs } = await createApp(() => 'done', { methods: ['PUT'] })
    const put = () =>
      app.inject({ method: 'PUT', url: '/things/1', headers: { 'idempotency-key': 'key' } })
    await put()
    expect((await put()).headers['idempotency-replayed']).toBe('true')
    expect(runs()).toBe(1)
  })

  test('refuses a request without a key, or handles it without protection if no key is required', async () => {
    const strict = await createApp(() => 'done')
    const without = (app: FastifyInstance) => app.inject({ method: 'POST', url: '/things/1' })
    expect((await without(strict.app)).json().code).toBe('idempotency-key-missing')
    const lax = await createApp(() => 'done', { required: false })
    expect((await without(lax.app)).statusCode).toBe(200)
    expect((await without(lax.app)).headers['idempotency-replayed']).toBeUndefined()
    expect(lax.runs()).toBe(2)
  })

  test('releases the key when the handler throws, for another body too', async () => {
    const { app, runs } = await createApp(() => {
      throw new Error('no')
    })
    expect((await post(app)).statusCode).toBe(500)
    expect((await post(app, { a: 2 })).statusCode).toBe(500)
    expect(runs()).toBe(2)
  })

  test('releases the key when the handler takes over the reply and closes it', async () => {
    const { app, runs } = await createApp((_request, reply) => {
      reply.hijack()
      reply.raw.destroy()
    })
    const url = await app.listen({ port: 0, host: '127.0.0.1' })
    const aborted = () =>
      fetch(`${url}/things/1`, { method: 'POST', headers: { 'idempotency-key': 'key' } })
    await expect(aborted()).rejects.toThrow()
    await until(async () => {
      await expect(aborted()).rejects.toThrow()
      return runs() === 2
    })
  })

  test('refuses with 503 while its store fails, if there is no durable record', async () => {
    const released: string[] = []
    const store: IdempotencyStore = {
      ...memoryStore(),
      claim: () => Promise.reject(new Error('down')),
      release: async (key) => void released.push(key),
    }
    const { app, runs } = await createApp(() => 'done', { store })
    const reply = await post(app)
    expect(reply.statusCode).toBe(503)
    expect(reply.json().code).toBe('store-unavailable')
    expect(reply.headers['retry-after']).toBe('1')
    expect(runs()).toBe(0)
    expect(released).toEqual(['key'])
  })

  test('refuses with 503 when its store does not respond in time', async () => {
    const store = { ...memoryStore(), claim: () => new Promise<never>(() => {}) }
    const { app } = await createApp(() => 'done', { store, storeTimeoutMs: 10 })
    expect((await post(app)).json().code).toBe('store-unavailable')
  })

  test('goes on without its store if there is a durable record', async () => {
    const store = { ...memoryStore(), claim: () => Promise.reject(new Error('down')) }
    const { app, runs } = await createApp(() => 'done', { store, recover: async () => undefined })
    expect((await post(app)).body).toBe('done')
    expect(runs()).toBe(1)
  })

  test('runs the handler without a claim if the record belongs to another database', async () => {
    const touched: string[] = []
    const store: IdempotencyStore = {
      ...memoryStore(),
      claim: () => Promise.reject(new ForeignRecordError('the record belongs to another database')),
      renew: async () => touched.push('renewed') > 0,
      complete: async () => void touched.push('completed'),
      release: async () => void touched.push('released'),
    }
    const { app, runs } = await createApp(() => 'done', { store, recover: async () => undefined })
    const reply = await post(app, { a: 1 }, { prefer: 'wait=1' })
    expect(reply.body).toBe('done')
    expect(reply.headers['idempotency-replayed']).toBeUndefined()
    expect(runs()).toBe(1)
    expect(touched).toEqual([])
  })

  test('refuses with 503 if the record belongs to another database and nothing else is durable', async () => {
    const claim = () => Promise.reject(new ForeignRecordError('another database'))
    const { app, runs } = await createApp(() => 'done', { store: { ...memoryStore(), claim } })
    expect((await post(app)).json().code).toBe('store-unavailable')
    expect(runs()).toBe(0)
  })

  test('sends a response that cannot be stored', async () => {
    const failing = () => Promise.reject(new Error('down'))
    const { app } = await createApp(() => 'done', {
      store: { ...memoryStore(), complete: failing },
      closeTimeoutMs: 0,
    })
    expect((await post(app)).body).toBe('done')
  })

  test('looks for a durable record before it refuses, and replays its response', async () => {
    const store = memoryStore()
    const response = { statusCode: 201, headers: { etag: '"1"' }, body: 'recovered' }
    const { app, runs } = await createApp(() => 'done', {
      store,
      fingerprint: ({ body }) => String((body as { a: number }).a),
      recover: async (key) => (key === 'key' ? { fingerprint: '1', response } : undefined),
    })
    await store.claim('key', '1', 'of a dead process')
    const reply = await post(app)
    expect(reply).toMatchObject({ statusCode: 201, body: 'recovered' })
    expect(reply.headers).toMatchObject({ etag: '"1"', 'idempotency-replayed': 'true' })
    expect((await post(app, { a: 2 })).statusCode).toBe(409)
    expect(runs()).toBe(0)
  })

  test('releases a claim that was made although the store failed', async () => {
    const inner = memoryStore()
    let lost = 1
    const store: IdempotencyStore = {
      ...inner,
      claim: async (...args) => {
        const claim = await inner.claim(...args)
        if (lost-- > 0) throw new Error('the reply was lost')
        return claim
      },
    }
    const { app, runs } = await createApp(() => 'done', { store })
    expect((await post(app)).statusCode).toBe(503)
    expect((await post(app)).body).toBe('done')
    expect((await post(app)).headers['idempotency-replayed']).toBe('true')
    expect(runs()).toBe(1)
  })

  test('releases a claim that was made too late, after it was made', async () => {
    const inner = memoryStore()
    const gate = createGate()
    let isClaimed = false
    const store: IdempotencyStore = {
      ...inner,
      claim: async (...args) => {
        await gate.pass()
        const claim = await inner.claim(...args)
        isClaimed = true
        return claim
      },
    }
    const { app } = await createApp(() => 'done', { store, storeTimeoutMs: 10 })
    expect((await post(app)).json().code).toBe('store-unavailable')
    gate.open()
    await until(() => isClaimed)
    await until(async () => (await inner.claim('key', 'f', 'other')).state === 'new')
  })

  test('refuses several keys, which arrive joined by a comma', async () => {
    const { app, runs } = await createApp(() => 'done')
    const { port } = new URL(await app.listen({ port: 0, host: '127.0.0.1' }))
    const reply = await new Promise<IncomingMessage>((resolve, reject) => {
      const headers = { 'idempotency-key': ['key', 'key'] }
      request({ port, host: '127.0.0.1', method: 'POST', path: '/things/1', headers }, resolve)
        .on('error', reject)
        .end()
    })
    expect(reply.statusCode).toBe(400)
    expect(JSON.parse(await text(reply)).code).toBe('idempotency-key-invalid')
    expect(runs()).toBe(0)
  })
})

test('the example in docs/examples runs as another application would', async () => {
  const example = fileURLToPath(new URL('../../../docs/examples/refunds.js', import.meta.url))
  const port = await freePort()
  const child = spawn(process.execPath, [example], {
    env: { ...process.env, PORT: `${port}` },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(async () => {
    child.kill()
    await once(child, 'exit')
  })
  await once(child.stdout, 'data')
  const refund = async (merchant: string) => {
    const response = await fetch(`http://127.0.0.1:${port}/payments/7/refunds`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'idempotency-key': 'k',
        'x-merchant': merchant,
      },
      body: '{"amount":5}',
    })
    return [await response.text(), response.headers.get('idempotency-replayed')]
  }
  expect(await refund('a')).toEqual(['{"refund":1,"payment":"7","amount":5}', null])
  expect(await refund('a')).toEqual(['{"refund":1,"payment":"7","amount":5}', 'true'])
  expect(await refund('b')).toEqual(['{"refund":2,"payment":"7","amount":5}', null])
})
