import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { freePort } from '../../../src/stores/embedded/free-port.ts'
import { createGate } from '../../../test/support/gate.ts'
import { until } from '../../../test/support/until.ts'
import {
  createMemoryStore,
  errorHandler,
  type IdempotencyOptions,
  type IdempotencyStore,
  idempotency,
} from '../src/index.ts'

type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown

const LEASE_MS = 30_000
const memoryStore = () => createMemoryStore({ leaseMs: LEASE_MS, ttlMs: 86_400_000 })

/** An application with one protected route, and how often its handler ran. */
async function createApp(
  handler: Handler,
  options: Partial<IdempotencyOptions> = {},
): Promise<{ app: FastifyInstance; runs: () => number }> {
  let runs = 0
  const app = fastify()
  await app.register(errorHandler)
  await app.register(idempotency, { store: memoryStore(), ...options })
  app.route({
    method: ['GET', 'POST', 'PUT'],
    url: '/things/:id',
    handler: (request, reply) => {
      runs++
      return handler(request, reply)
    },
  })
  app.post('/others/:id', () => ({ other: true }))
  onTestFinished(() => app.close())
  return { app, runs: () => runs }
}

const post = (
  app: FastifyInstance,
  body: object = { a: 1 },
  headers: Record<string, string> = {},
) =>
  app.inject({
    method: 'POST',
    url: '/things/1',
    payload: body,
    headers: { 'idempotency-key': 'key', ...headers },
  })

describe('the idempotency plugin', () => {
  test('runs a handler once a key, and replays its status, headers and bytes', async () => {
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

  test('replays the headers that it is told to', async () => {
    const { app } = await createApp(
      (_request, reply) => reply.header('X-Own', 'own').send('done'),
      {
        replayedHeaders: ['X-Own'],
      },
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
  ])('never replays %s: not by default, and to ask for it is an error', async (name) => {
    await expect(
      Promise.resolve(
        fastify().register(idempotency, { store: memoryStore(), replayedHeaders: [name] }),
      ),
    ).rejects.toThrow(`the header ${name.toLowerCase()} must not be replayed`)
  })

  test('does not replay a cookie', async () => {
    const { app } = await createApp((_request, reply) =>
      reply.header('set-cookie', 'a=b').send('x'),
    )
    expect((await post(app)).headers['set-cookie']).toBe('a=b')
    expect((await post(app)).headers['set-cookie']).toBeUndefined()
  })

  test('replays bytes as they were', async () => {
    const bytes = Buffer.from([0x00, 0xff, 0xc3, 0x28])
    const { app, runs } = await createApp((_request, reply) => reply.send(bytes))
    expect((await post(app)).rawPayload).toEqual(bytes)
    expect((await post(app)).rawPayload).toEqual(bytes)
    expect(runs()).toBe(1)
  })

  test('replays an response without a body', async () => {
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

  test('leaves the errors of its application as they are', async () => {
    const { app } = await createApp(() => {
      throw Object.assign(new Error('Pay first.'), { statusCode: 402 })
    })
    expect((await post(app)).json()).toEqual({
      type: 'about:blank',
      title: 'Payment Required',
      status: 402,
      detail: 'Pay first.',
    })
  })

  test('tells another query under the key, and refuses a body without canonical form', async () => {
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

  test('tells another body, another parameter and another route under the key', async () => {
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

  test('takes two tenants with one key for strangers, whatever their names are', async () => {
    const { app, runs } = await createApp((request) => String(request.headers['x-tenant']), {
      scope: (request) => String(request.headers['x-tenant']),
    })
    const by = (tenant: string, key: string) =>
      post(app, { a: 1 }, { 'x-tenant': tenant, 'idempotency-key': key })
    expect((await by('a', 'b:c')).body).toBe('a')
    expect((await by('a:b', 'c')).body).toBe('a:b')
    expect((await by('b', 'b:c')).body).toBe('b')
    expect((await by('a', 'b:c')).headers['idempotency-replayed']).toBe('true')
    expect(runs()).toBe(3)
  })

  test('takes a fingerprint of one own making', async () => {
    const { app, runs } = await createApp(() => 'done', {
      fingerprint: ({ body }) => String((body as { a: number }).a),
    })
    await post(app, { a: 1, at: 1 })
    expect((await post(app, { a: 1, at: 2 })).headers['idempotency-replayed']).toBe('true')
    expect((await post(app, { a: 2 })).statusCode).toBe(409)
    expect(runs()).toBe(1)
  })

  test('lets other methods pass', async () => {
    const { app, runs } = await createApp(() => 'done')
    for (const method of ['GET', 'PUT', 'PUT'] as const) {
      expect((await app.inject({ method, url: '/things/1' })).statusCode).toBe(200)
    }
    expect(runs()).toBe(3)
  })

  test('protects the methods that it is told to', async () => {
    const { app, runs } = await createApp(() => 'done', { methods: ['PUT'] })
    const put = () =>
      app.inject({ method: 'PUT', url: '/things/1', headers: { 'idempotency-key': 'key' } })
    await put()
    expect((await put()).headers['idempotency-replayed']).toBe('true')
    expect(runs()).toBe(1)
  })

  test('refuses a request without a key, or lets it pass unprotected if it may be left out', async () => {
    const strict = await createApp(() => 'done')
    const without = (app: FastifyInstance) => app.inject({ method: 'POST', url: '/things/1' })
    expect((await without(strict.app)).json().code).toBe('idempotency-key-missing')
    const lax = await createApp(() => 'done', { required: false })
    expect((await without(lax.app)).statusCode).toBe(200)
    expect((await without(lax.app)).headers['idempotency-replayed']).toBeUndefined()
    expect(lax.runs()).toBe(2)
  })

  test.each([200, 201, 302, 400, 404, 422, 429])('remembers an response of %i', async (status) => {
    const { app, runs } = await createApp((_request, reply) => reply.code(status).send({ status }))
    const first = await post(app)
    expect(await post(app)).toMatchObject({ statusCode: status, body: first.body })
    expect(runs()).toBe(1)
  })

  test.each([500, 502, 503])('frees the key after an response of %i', async (status) => {
    const { app, runs } = await createApp((_request, reply) => reply.code(status).send({ status }))
    await post(app)
    await post(app)
    expect(runs()).toBe(2)
  })

  test('remembers the statuses that it is told to', async () => {
    const { app, runs } = await createApp((_request, reply) => reply.code(404).send({}), {
      remembers: (status) => status < 300,
    })
    await post(app)
    await post(app)
    expect(runs()).toBe(2)
  })

  test('frees the key when the handler throws, for another body too', async () => {
    const { app, runs } = await createApp(() => {
      throw new Error('no')
    })
    expect((await post(app)).statusCode).toBe(500)
    expect((await post(app, { a: 2 })).statusCode).toBe(500)
    expect(runs()).toBe(2)
  })

  test('passes a stream on, and does not remember it', async () => {
    const { app, runs } = await createApp((_request, reply) =>
      reply.type('text/plain').send(Readable.from(['str', 'eam'])),
    )
    expect((await post(app)).body).toBe('stream')
    expect((await post(app)).body).toBe('stream')
    expect(runs()).toBe(2)
  })

  test('passes a body on that is larger than it remembers', async () => {
    const { app, runs } = await createApp(() => 'ü'.repeat(50), { maxBodyBytes: 99 })
    expect((await post(app)).body).toBe('ü'.repeat(50))
    await post(app)
    expect(runs()).toBe(2)
    const fitting = await createApp(() => 'ü'.repeat(50), { maxBodyBytes: 100 })
    await post(fitting.app)
    await post(fitting.app)
    expect(fitting.runs()).toBe(1)
  })

  test('frees the key when the handler takes over the reply and ends it', async () => {
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

  test('refuses with 503 while its store fails, if the handler has no last word of its own', async () => {
    const abandoned: string[] = []
    const store: IdempotencyStore = {
      ...memoryStore(),
      claim: () => Promise.reject(new Error('down')),
      release: async (key) => void abandoned.push(key),
    }
    const { app, runs } = await createApp(() => 'done', { store })
    const reply = await post(app)
    expect(reply.statusCode).toBe(503)
    expect(reply.json().code).toBe('store-unavailable')
    expect(reply.headers['retry-after']).toBe('1')
    expect(runs()).toBe(0)
    expect(abandoned).toEqual(['key'])
  })

  test('refuses with 503 when its store does not response in time', async () => {
    const store = { ...memoryStore(), claim: () => new Promise<never>(() => {}) }
    const { app } = await createApp(() => 'done', { store, storeTimeoutMs: 10 })
    expect((await post(app)).json().code).toBe('store-unavailable')
  })

  test('goes on without its store if the handler has a last word of its own', async () => {
    const store = { ...memoryStore(), claim: () => Promise.reject(new Error('down')) }
    const { app, runs } = await createApp(() => 'done', { store, recover: async () => undefined })
    expect((await post(app)).body).toBe('done')
    expect(runs()).toBe(1)
  })

  test('gives the client its response though it cannot be remembered', async () => {
    const failing = () => Promise.reject(new Error('down'))
    const { app } = await createApp(() => 'done', {
      store: { ...memoryStore(), complete: failing },
    })
    expect((await post(app)).body).toBe('done')
  })

  test('asks the durable record before it refuses, and replays what that knows', async () => {
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

  test('keeps the lease of a handler that is slower than it, and its owner alone completes', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    onTestFinished(() => void vi.useRealTimers())
    let now = 0
    const store = createMemoryStore({ leaseMs: LEASE_MS, ttlMs: 86_400_000, now: () => now })
    const gate = createGate()
    const { app, runs } = await createApp(
      async () => {
        await gate.pass()
        return 'done'
      },
      { store },
    )
    const slow = post(app)
    await until(() => gate.arrived === 1)
    for (let third = 0; third < 9; third++) {
      now += LEASE_MS / 3
      await vi.advanceTimersByTimeAsync(LEASE_MS / 3)
    }
    expect((await post(app)).json().code).toBe('request-in-progress')
    gate.open()
    expect((await slow).body).toBe('done')
    expect((await post(app)).headers['idempotency-replayed']).toBe('true')
    expect(runs()).toBe(1)
    expect(vi.getTimerCount()).toBe(0)
  })

  test('lets go of a lease that it has lost, and does not disturb who has it now', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    onTestFinished(() => void vi.useRealTimers())
    let now = 0
    const store = createMemoryStore({ leaseMs: LEASE_MS, ttlMs: 86_400_000, now: () => now })
    const gate = createGate()
    const { app } = await createApp(
      async () => {
        await gate.pass()
        return 'of the old owner'
      },
      { store, fingerprint: () => 'f' },
    )
    const slow = post(app)
    await until(() => gate.arrived === 1)
    now += LEASE_MS
    await store.claim('key', 'f', 'new owner')
    await vi.advanceTimersByTimeAsync(LEASE_MS)
    gate.open()
    await slow
    expect((await post(app)).json().code).toBe('request-in-progress')
  })

  test('recognises its own claim when the reply to it was lost', async () => {
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
