import { request } from 'node:http'
import { PassThrough, Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { describe, expect, test, vi } from 'vitest'
import { until } from '../../../test/support/until.ts'
import type { IdempotencyOptions } from '../src/index.ts'
import { errorHandler, idempotency } from '../src/index.ts'
import { createEmptyApp, FASTIFY_VERSIONS, isReplayed, memoryStore, post } from './support/app.ts'

type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown

const warning = (reason: string) =>
  `the response is not stored (${reason}): a repeat runs the handler again`

describe.each(Object.entries(FASTIFY_VERSIONS))('with Fastify %s', (_name, create) => {
  async function createCounting(handler: Handler, options: Partial<IdempotencyOptions> = {}) {
    const onNotRemembered = vi.fn()
    const { app, warnings } = createEmptyApp(create)
    await app.register(errorHandler)
    await app.register(idempotency, { store: memoryStore(), onNotRemembered, ...options })
    let runs = 0
    app.post('/things/:id', (request, reply) => {
      runs++
      return handler(request, reply)
    })
    return { app, warnings, onNotRemembered, runs: () => runs }
  }

  describe('a Response', () => {
    test('is stored and replayed with its status and headers', async () => {
      const { app, runs, onNotRemembered } = await createCounting(
        () =>
          new Response('{"a":1}', {
            status: 201,
            headers: [
              ['content-type', 'application/json'],
              ['location', '/1'],
              ['set-cookie', 'a=1'],
              ['set-cookie', 'b=2'],
            ],
          }),
      )
      const first = await post(app)
      const repeat = await post(app)
      for (const response of [first, repeat]) {
        expect(response).toMatchObject({ statusCode: 201, body: '{"a":1}' })
        expect(response.headers).toMatchObject({
          'content-type': 'application/json',
          location: '/1',
        })
      }
      expect(first.headers['set-cookie']).toEqual(['a=1', 'b=2'])
      expect(repeat.headers['set-cookie']).toBeUndefined()
      expect(isReplayed(repeat)).toBe(true)
      expect(runs()).toBe(1)
      expect(onNotRemembered).not.toHaveBeenCalled()
    })

    test('without a body is stored', async () => {
      const { app, runs } = await createCounting(() => new Response(null, { status: 204 }))
      await post(app)
      expect(await post(app)).toMatchObject({ statusCode: 204, body: '' })
      expect(runs()).toBe(1)
    })

    test('of maxBodyBytes is stored; a longer one is sent whole, and reported', async () => {
      const chunks = ['a'.repeat(50), 'b'.repeat(50), 'c'.repeat(50)]
      const { app, runs, warnings, onNotRemembered } = await createCounting(
        ({ body }) =>
          new Response(
            Readable.toWeb(
              Readable.from(chunks.slice(0, (body as { chunks: number }).chunks).map(Buffer.from)),
            ) as ReadableStream,
          ),
        { maxBodyBytes: 100, fingerprint: () => 'f' },
      )
      const send = (key: string, count: number) =>
        post(app, { chunks: count }, { 'idempotency-key': key })
      await send('short', 2)
      expect(await send('short', 2)).toMatchObject({ body: chunks.slice(0, 2).join('') })
      expect(runs()).toBe(1)
      for (let i = 0; i < 2; i++) expect((await send('long', 3)).body).toBe(chunks.join(''))
      expect(runs()).toBe(3)
      expect(onNotRemembered.mock.calls).toEqual([['too-large'], ['too-large']])
      expect(warnings).toEqual([warning('too-large'), warning('too-large')])
    })

    test('that is a stream of events is sent as it comes, and reported', async () => {
      const events = new PassThrough()
      const { app, onNotRemembered } = await createCounting(
        () =>
          new Response(Readable.toWeb(events) as ReadableStream, {
            headers: { 'content-type': 'text/event-stream; charset=utf-8' },
          }),
      )
      const url = await app.listen({ port: 0, host: '127.0.0.1' })
      events.write('data: 1\n\n')
      const response = await fetch(`${url}/things/1`, {
        method: 'POST',
        headers: { 'idempotency-key': 'key' },
      })
      const reader = response.body?.getReader()
      expect(Buffer.from((await reader?.read())?.value ?? []).toString()).toBe('data: 1\n\n')
      expect(onNotRemembered.mock.calls).toEqual([['stream']])
      events.end()
      await reader?.read()
    })

    test('is not read if the option says so', async () => {
      const { app, runs, onNotRemembered } = await createCounting(
        () => new Response('text', { status: 201 }),
        { readsResponses: false },
      )
      for (let i = 0; i < 2; i++) {
        await until(async () => (await post(app)).statusCode === 201)
      }
      expect(runs()).toBe(2)
      expect(onNotRemembered.mock.calls).toEqual([['stream'], ['stream']])
    })

    test('that is no result is not read, and not reported', async () => {
      const { app, runs, onNotRemembered } = await createCounting(
        () => new Response('busy', { status: 503 }),
      )
      for (let i = 0; i < 2; i++) expect((await post(app)).body).toBe('busy')
      expect(runs()).toBe(2)
      expect(onNotRemembered).not.toHaveBeenCalled()
    })

    test('whose body fails is a 500, and its key is released', async () => {
      const { app, runs } = await createCounting(
        () =>
          new Response(
            new ReadableStream({ start: (controller) => controller.error(new Error('failed')) }),
          ),
      )
      for (let i = 0; i < 2; i++) expect((await post(app)).statusCode).toBe(500)
      expect(runs()).toBe(2)
    })
  })

  test.each(['node', 'web'])(
    'a stream of %s is sent, not stored, and reported each time',
    async (kind) => {
      const { app, runs, warnings, onNotRemembered } = await createCounting((_request, reply) => {
        const stream = Readable.from(['str', 'eam'].map(Buffer.from))
        return reply.type('text/plain').send(kind === 'web' ? Readable.toWeb(stream) : stream)
      })
      for (let i = 0; i < 2; i++) expect((await post(app)).body).toBe('stream')
      expect(runs()).toBe(2)
      expect(onNotRemembered.mock.calls).toEqual([['stream'], ['stream']])
      expect(warnings).toEqual([warning('stream'), warning('stream')])
    },
  )

  test('a stream keeps its key while it is being sent', async () => {
    const stream = new PassThrough()
    const { app, runs } = await createCounting((_request, reply) => reply.send(stream))
    const first = post(app)
    await until(() => runs() === 1)
    expect((await post(app)).json().code).toBe('request-in-progress')
    stream.end('done')
    expect((await first).body).toBe('done')
    await until(async () => (await post(app)).statusCode !== 409)
    expect(runs()).toBe(2)
  })

  test('a stream whose client has gone releases its key', async () => {
    const { app, runs } = await createCounting((_request, reply) => {
      const stream = new PassThrough()
      stream.write('first')
      return reply.send(stream)
    })
    const { port } = new URL(await app.listen({ port: 0, host: '127.0.0.1' }))
    /** Sends a request, and disconnects when the response begins. @returns its status */
    const sendAndDisconnect = () =>
      new Promise((resolve, reject) => {
        const headers = { 'idempotency-key': 'key' }
        request({ port, host: '127.0.0.1', method: 'POST', path: '/things/1', headers })
          .on('response', (response) => {
            response.destroy()
            resolve(response.statusCode)
          })
          .on('error', reject)
          .end()
      })
    for (const run of [1, 2]) {
      await until(async () => (await sendAndDisconnect()) === 200)
      expect(runs()).toBe(run)
    }
  })

  test('a body that is larger than maxBodyBytes is sent, not stored, and reported', async () => {
    const { app, runs, warnings, onNotRemembered } = await createCounting(() => 'ü'.repeat(50), {
      maxBodyBytes: 99,
    })
    expect((await post(app)).body).toBe('ü'.repeat(50))
    await post(app)
    expect(runs()).toBe(2)
    expect(onNotRemembered.mock.calls).toEqual([['too-large'], ['too-large']])
    expect(warnings).toEqual([warning('too-large'), warning('too-large')])
    const fitting = await createCounting(() => 'ü'.repeat(50), { maxBodyBytes: 100 })
    await post(fitting.app)
    expect(isReplayed(await post(fitting.app))).toBe(true)
  })

  test.each([
    ['a stream', (): unknown => Readable.from(['stream'])],
    ['a large body', () => 'x'.repeat(100)],
  ])('%s that is no result is not reported', async (_kind, createBody) => {
    const { app, warnings, onNotRemembered } = await createCounting(
      (_request, reply) => reply.code(500).type('text/plain').send(createBody()),
      { maxBodyBytes: 10 },
    )
    await post(app)
    expect(onNotRemembered).not.toHaveBeenCalled()
    expect(warnings).toEqual([])
  })

  test('a response that the handler sends by itself is reported', async () => {
    const { app, onNotRemembered } = await createCounting((_request, reply) => {
      reply.hijack()
      reply.raw.end('by itself')
    })
    const url = await app.listen({ port: 0, host: '127.0.0.1' })
    const headers = { 'idempotency-key': 'key' }
    const response = await fetch(`${url}/things/1`, { method: 'POST', headers })
    expect(await response.text()).toBe('by itself')
    await until(() => onNotRemembered.mock.calls.length === 1)
    expect(onNotRemembered).toHaveBeenCalledWith('hijacked')
  })
})
