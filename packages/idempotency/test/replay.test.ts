import { PassThrough, Readable } from 'node:stream'
import { createGzip, gunzipSync } from 'node:zlib'
import compress from '@fastify/compress'
import cors from '@fastify/cors'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { describe, expect, test } from 'vitest'
import { errorHandler, type IdempotencyOptions, idempotency } from '../src/index.ts'
import { createEmptyApp, FASTIFY_VERSIONS, isReplayed, memoryStore, post } from './support/app.ts'

interface Setup {
  /** registers hooks before the plugin */
  outer?: (app: FastifyInstance) => unknown
  /** registers hooks after the plugin */
  inner?: (app: FastifyInstance) => unknown
  handler?: (request: FastifyRequest, reply: FastifyReply) => unknown
  options?: Partial<IdempotencyOptions>
}

/** The headers of a response but those of one delivery. */
function withoutDelivery(headers: Record<string, unknown>) {
  const { date, connection, 'idempotency-replayed': replayed, ...others } = headers
  return others
}

describe.each(Object.entries(FASTIFY_VERSIONS))('with Fastify %s, a replay', (_name, create) => {
  async function createWithHooks({ outer, inner, handler = () => ({ ok: true }), options }: Setup) {
    const { app, log } = createEmptyApp(create)
    await app.register(errorHandler)
    await outer?.(app)
    await app.register(idempotency, { store: memoryStore(), ...options })
    await inner?.(app)
    let runs = 0
    app.post('/things/:id', (request, reply) => {
      runs++
      return handler(request, reply)
    })
    return { app, log, runs: () => runs }
  }

  /** Sends a request twice, and expects the same response. */
  async function expectSameBytes(
    app: FastifyInstance,
    headers: { first?: Record<string, string>; repeat?: Record<string, string> } = {},
  ) {
    const first = await post(app, {}, headers.first)
    const repeat = await post(app, {}, headers.repeat)
    expect(isReplayed(first)).toBe(false)
    expect(isReplayed(repeat)).toBe(true)
    expect(repeat.statusCode).toBe(first.statusCode)
    expect(repeat.rawPayload).toEqual(first.rawPayload)
    expect(withoutDelivery(repeat.headers)).toEqual(withoutDelivery(first.headers))
    return repeat
  }

  test('is wrapped once by an envelope that was registered before', async () => {
    const { app } = await createWithHooks({
      outer: (app) =>
        app.addHook('onSend', async (_request, _reply, payload) => `{"data":${payload}}`),
    })
    expect((await expectSameBytes(app)).json()).toEqual({ data: { ok: true } })
  })

  test('passes through the hooks that were registered after', async () => {
    let deliveries = 0
    const { app } = await createWithHooks({
      handler: () => 'done',
      inner: (app) =>
        app.addHook('onSend', async (_request, _reply, payload) => `${payload} ${++deliveries}`),
    })
    expect((await post(app)).body).toBe('done 1')
    expect((await post(app)).body).toBe('done 2')
  })

  test('has the status and the headers that an earlier hook has set on the first response', async () => {
    let call = 0
    const { app } = await createWithHooks({
      outer: (app) =>
        app.addHook('onSend', async (_request, reply) => {
          call++
          reply.code(200 + call).header('etag', `"${call}"`)
          if (call === 1) reply.header('location', '/1')
          else reply.header('content-language', 'en').header('content-encoding', 'x')
        }),
    })
    expect(await expectSameBytes(app)).toMatchObject({
      statusCode: 201,
      headers: { etag: '"1"', location: '/1' },
    })
  })

  test.each([200, 202, 204, 205, 303, 304, 404])(
    'of an empty %i has the headers of the first response',
    async (status) => {
      const { app, runs } = await createWithHooks({
        handler: (_request, reply) => reply.code(status).send(),
      })
      const repeat = await expectSameBytes(app)
      expect(repeat.headers['content-type']).toBeUndefined()
      expect(runs()).toBe(1)
    },
  )

  test('of an empty text has its type', async () => {
    const { app } = await createWithHooks({ handler: () => '' })
    expect((await expectSameBytes(app)).headers['content-type']).toBe('text/plain; charset=utf-8')
  })

  test('of JSON without a charset has none', async () => {
    const { app } = await createWithHooks({
      outer: (app) =>
        app.addHook('onSend', async (_request, reply) => {
          reply.header('content-type', 'application/json')
        }),
    })
    expect((await expectSameBytes(app)).headers['content-type']).toBe('application/json')
  })

  test('has each value of Vary once', async () => {
    const { app } = await createWithHooks({
      outer: (app) => app.register(cors, { origin: ['http://a.example', 'http://b.example'] }),
      handler: (_request, reply) => reply.header('vary', 'Accept').send('done'),
    })
    await expectSameBytes(app, {
      first: { origin: 'http://a.example' },
      repeat: { origin: 'http://a.example' },
    })
    const appending = await createWithHooks({
      outer: (app) =>
        app.addHook('onSend', async (_request, reply) => {
          reply.header('vary', [reply.getHeader('vary') ?? [], 'Origin'].flat().join(', '))
        }),
      handler: (_request, reply) => reply.header('vary', 'Accept').send('done'),
    })
    expect((await expectSameBytes(appending.app)).headers.vary).toBe('Accept, Origin')
  })

  test.each(['outer', 'inner'] as const)(
    'is compressed for a client that accepts that, by @fastify/compress as an %s plugin',
    async (place) => {
      const text = 'a'.repeat(5_000)
      const { app } = await createWithHooks({
        [place]: (app: FastifyInstance) => app.register(compress),
        handler: () => text,
      })
      for (const gzip of [false, true, false]) {
        const response = await post(app, {}, gzip ? { 'accept-encoding': 'gzip' } : {})
        const bytes = gzip ? gunzipSync(response.rawPayload) : response.rawPayload
        expect(bytes.toString()).toBe(text)
      }
    },
  )

  test('destroys the streams that earlier hooks make of it', async () => {
    const streams: (PassThrough | Readable)[] = []
    let cancelled = 0
    let call = 0
    const { app } = await createWithHooks({
      handler: () => 'done',
      outer: (app) =>
        app.addHook('onSend', async (_request, _reply, payload) => {
          call++
          if (call === 1) return payload
          if (call === 2) streams.push(Readable.from(['other']).pipe(createGzip()))
          if (call === 3) streams.push(new PassThrough())
          if (call <= 3) return streams.at(-1)
          const endless = new ReadableStream({ cancel: () => void cancelled++ })
          return call === 4 ? endless : new Response(endless)
        }),
    })
    expect((await post(app)).body).toBe('done')
    for (let i = 0; i < 4; i++) {
      const repeat = await post(app)
      expect(repeat.body).toBe('done')
      expect(isReplayed(repeat)).toBe(true)
    }
    expect(streams.map(({ destroyed }) => destroyed)).toEqual([true, true])
    expect(cancelled).toBe(2)
  })

  test.each(['outer', 'inner'] as const)(
    'is none if an %s hook fails: the error is sent, without headers of the replay',
    async (place) => {
      let fails = false
      const { app } = await createWithHooks({
        handler: (_request, reply) => reply.code(201).header('location', '/1').send('done'),
        [place]: (app: FastifyInstance) =>
          app.addHook('onSend', async (_request, reply) => {
            if (fails && reply.statusCode === 201) {
              throw Object.assign(new Error('failed'), { statusCode: 500 })
            }
          }),
      })
      await post(app)
      fails = true
      const failed = await post(app)
      expect(failed.statusCode).toBe(500)
      expect(failed.json().message).toBe('failed')
      expect(isReplayed(failed)).toBe(false)
      expect(failed.headers.location).toBeUndefined()
      fails = false
      const repeat = await post(app)
      expect(repeat).toMatchObject({ statusCode: 201, body: 'done' })
      expect(isReplayed(repeat)).toBe(true)
    },
  )

  test('that recover rebuilds passes through all hooks, as the response of the handler does', async () => {
    const store = memoryStore()
    const { app, runs } = await createWithHooks({
      outer: (app) =>
        app.addHook('onSend', async (_request, _reply, payload) => `{"data":${payload}}`),
      options: {
        store,
        fingerprint: () => 'f',
        recover: async () => ({
          fingerprint: 'f',
          response: { statusCode: 201, headers: {}, body: '{"ok":true}' },
        }),
      },
    })
    await store.claim('key', 'f', 'of a dead process')
    const replay = await post(app)
    expect(replay.statusCode).toBe(201)
    expect(replay.json()).toEqual({ data: { ok: true } })
    expect(isReplayed(replay)).toBe(true)
    expect(runs()).toBe(0)
  })

  test('has the headers that describe its body, whatever the option replayedHeaders says', async () => {
    const describing = {
      'content-type': 'text/csv',
      'content-encoding': 'identity',
      'content-language': 'en',
      'content-location': '/1',
      'content-disposition': 'attachment',
      etag: '"1"',
      'last-modified': 'Thu, 01 Jan 1970 00:00:00 GMT',
      'content-digest': 'sha-256=:AA==:',
      'repr-digest': 'sha-256=:AA==:',
    }
    const { app } = await createWithHooks({
      handler: (_request, reply) => reply.headers(describing).send('a'),
      options: { store: memoryStore({ replayedHeaders: ['X-Own'] }) },
    })
    expect((await expectSameBytes(app)).headers).toMatchObject(describing)
  })
})
