import { once } from 'node:events'
import { connect } from 'node:http2'
import type { AddressInfo } from 'node:net'
import formbody from '@fastify/formbody'
import multipart from '@fastify/multipart'
import { type FastifyInstance, type FastifyRequest, fastify } from 'fastify'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { errorHandler, type IdempotencyOptions, idempotency } from '../src/index.ts'
import { createEmptyApp, FASTIFY_VERSIONS, isReplayed, memoryStore } from './support/app.ts'

const FORM = 'application/x-www-form-urlencoded'
const MULTIPART = 'multipart/form-data; boundary=limit'

/** A form with one file. */
const file = (content: string) =>
  `--limit\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n${content}\r\n--limit--\r\n`

const REFUSAL = 'The request cannot be protected by its Idempotency-Key.'

describe.each(Object.entries(FASTIFY_VERSIONS))(
  'with Fastify %s, the default fingerprint',
  (_version, create) => {
    /** An application with a route that counts its runs. */
    async function createCounting({
      options = {},
      plugin,
      route = {},
    }: {
      options?: Partial<IdempotencyOptions>
      plugin?: (app: FastifyInstance) => Promise<unknown>
      route?: object
    } = {}) {
      const { app, log } = createEmptyApp(create)
      await app.register(errorHandler)
      await plugin?.(app)
      await app.register(idempotency, { store: memoryStore(), ...options })
      let runs = 0
      app.post('/things/:id', route, () => `${++runs}`)
      const send = (
        payload: string | object,
        contentType = 'application/json',
        url = '/things/1',
      ) =>
        app.inject({
          method: 'POST',
          url,
          payload,
          headers: { 'idempotency-key': 'key', 'content-type': contentType },
        })
      return { app, log, send, runs: () => runs }
    }

    test('is taken before validation: a default that a deploy adds changes no retry', async () => {
      const store = memoryStore()
      const schema = (properties: object) => ({ schema: { body: { type: 'object', properties } } })
      const before = await createCounting({
        options: { store },
        route: schema({ a: { type: 'integer' } }),
      })
      expect((await before.send({ a: '1', unknown: 1 })).body).toBe('1')
      const after = await createCounting({
        options: { store },
        route: schema({ a: { type: 'integer' }, note: { type: 'string', default: '' } }),
      })
      expect(isReplayed(await after.send({ a: '1', unknown: 1 }))).toBe(true)
      expect((await after.send({ a: 1, unknown: 1 })).statusCode).toBe(409)
    })

    test('is taken before validation of the query and of the parameters, too', async () => {
      const store = memoryStore()
      const before = await createCounting({ options: { store } })
      await before.send({}, undefined, '/things/01?b=2')
      const after = await createCounting({
        options: { store },
        route: {
          schema: {
            params: { type: 'object', properties: { id: { type: 'integer' } } },
            querystring: {
              type: 'object',
              properties: { b: { type: 'integer' }, c: { default: 3 } },
            },
          },
        },
      })
      expect(isReplayed(await after.send({}, undefined, '/things/01?b=2'))).toBe(true)
    })

    test('is taken after the preValidation hooks of the route', async () => {
      const { send } = await createCounting({
        route: {
          preValidation: async (request: FastifyRequest) => {
            request.body = { ...(request.body as object), at: undefined }
          },
        },
      })
      await send({ a: 1, at: 1 })
      expect(isReplayed(await send({ a: 1, at: 2 }))).toBe(true)
    })

    test('of an option is taken on the validated request, after the other hooks', async () => {
      const order: string[] = []
      const fingerprint = vi.fn(({ body }: FastifyRequest) => {
        order.push('fingerprint')
        return JSON.stringify(body)
      })
      const { send } = await createCounting({
        options: { fingerprint },
        route: {
          preHandler: async () => void order.push('hook'),
          schema: { body: { type: 'object', properties: { note: { default: 'none' } } } },
        },
      })
      await send({ a: 1 })
      expect(fingerprint).toHaveReturnedWith('{"a":1,"note":"none"}')
      expect(order).toEqual(['hook', 'fingerprint'])
    })

    test.each([undefined, '', 7, {}])('of an option must be a text, not %j', async (value) => {
      const { send, log, runs } = await createCounting({
        options: { fingerprint: () => value as string },
      })
      expect((await send({})).json().message).toBe(REFUSAL)
      expect(log[0]?.err?.message).toBe('the option fingerprint must return a string')
      expect(runs()).toBe(0)
    })

    test('of a file that it cannot see is a 500 that names the option', async () => {
      const { send, log, runs } = await createCounting({
        plugin: async (app) => app.register(multipart),
      })
      for (const content of ['one', 'two']) {
        const response = await send(file(content), MULTIPART)
        expect(response.statusCode).toBe(500)
        expect(response.json().message).toBe(REFUSAL)
      }
      expect(runs()).toBe(0)
      expect(log[0]).toMatchObject({
        level: 50,
        msg: 'the request cannot be protected by its Idempotency-Key',
        err: {
          message:
            'the request has a body, but request.body is undefined: set the option fingerprint',
        },
      })
    })

    test('of a file that is in the body is another one for another file', async () => {
      const { send, runs } = await createCounting({
        plugin: async (app) => app.register(multipart, { attachFieldsToBody: 'keyValues' }),
      })
      expect((await send(file('one'), MULTIPART)).body).toBe('1')
      expect(isReplayed(await send(file('one'), MULTIPART))).toBe(true)
      expect((await send(file('two'), MULTIPART)).statusCode).toBe(409)
      expect(runs()).toBe(1)
    })

    test('of a form depends on its fields', async () => {
      const { send } = await createCounting({ plugin: async (app) => app.register(formbody) })
      expect((await send('a=1&b=2', FORM)).body).toBe('1')
      expect(isReplayed(await send('b=2&a=1', FORM))).toBe(true)
      expect((await send('a=1&b=3', FORM)).statusCode).toBe(409)
    })

    test('of a body that a parser makes a Map is a 500', async () => {
      const { send, log } = await createCounting({
        plugin: async (app) => {
          app.addContentTypeParser('text/map', { parseAs: 'string' }, (_request, body, done) => {
            done(null, new Map([['body', body]]))
          })
        },
      })
      expect((await send('one', 'text/map')).json().message).toBe(REFUSAL)
      expect(log[0]?.err?.message).toContain('an instance of Map')
    })

    test('is not needed if an option replaces it', async () => {
      const { send, runs } = await createCounting({
        plugin: async (app) => {
          app.addContentTypeParser('text/map', { parseAs: 'string' }, (_request, body, done) => {
            done(null, new Map([['body', body]]))
          })
        },
        options: {
          fingerprint: ({ body }) => `${(body as Map<string, string>).get('body')}`,
        },
      })
      expect((await send('one', 'text/map')).body).toBe('1')
      expect((await send('two', 'text/map')).statusCode).toBe(409)
      expect(runs()).toBe(1)
    })

    test('of a text or of bytes depends on them, and no body is one of its own', async () => {
      const { app, send } = await createCounting({
        plugin: async (app) => {
          app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) =>
            done(null, body),
          )
        },
      })
      const withoutBody = () =>
        app.inject({ method: 'POST', url: '/things/1', headers: { 'idempotency-key': 'none' } })
      expect((await withoutBody()).body).toBe('1')
      expect(isReplayed(await withoutBody())).toBe(true)
      expect((await send('one', 'text/plain')).body).toBe('2')
      expect((await send('two', 'text/plain')).statusCode).toBe(409)
    })

    test.each([
      ['with an infinite number', '{"a":1e400}'],
      ['with more than 1000 levels', `${'['.repeat(1_001)}${']'.repeat(1_001)}`],
    ])('of a body %s is a 400, which is not logged', async (_name, body) => {
      const { send, log, runs } = await createCounting()
      const response = await send(body)
      expect(response.statusCode).toBe(400)
      expect(response.json().code).toBe('bad-request')
      expect(log).toEqual([])
      expect(runs()).toBe(0)
    })

    test.each([
      ['that the server cannot see', new Map()],
      ['that has no canonical form', { a: Number.POSITIVE_INFINITY }],
    ])('of a body %s is no error for a caller who is refused', async (_name, parsed) => {
      const { send, log } = await createCounting({
        plugin: async (app) => {
          app.addContentTypeParser('text/map', { parseAs: 'string' }, (_request, _body, done) => {
            done(null, parsed)
          })
        },
        route: {
          preHandler: async (
            _request: unknown,
            reply: { code(status: number): { send(): unknown } },
          ) => reply.code(401).send(),
        },
      })
      expect((await send('one', 'text/map')).statusCode).toBe(401)
      expect(log).toEqual([])
    })

    test('is not taken of a request without a key', async () => {
      const { app, runs } = await createCounting({
        options: { required: false },
        plugin: async (app) => {
          app.addContentTypeParser('text/map', { parseAs: 'string' }, (_request, _body, done) => {
            done(null, new Map())
          })
        },
      })
      const headers = { 'content-type': 'text/map' }
      const response = await app.inject({ method: 'POST', url: '/things/1', payload: 'a', headers })
      expect(response.body).toBe('1')
      expect(runs()).toBe(1)
    })
  },
)

test('over HTTP/2, a body that no header announces is not taken for an empty one', async () => {
  const app = fastify({ http2: true })
  await app.register(errorHandler)
  await app.register(multipart)
  await app.register(idempotency, { store: memoryStore() })
  app.post('/files', () => 'done')
  await app.listen({ host: '127.0.0.1', port: 0 })
  const session = connect(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}`)
  onTestFinished(async () => {
    session.destroy()
    await app.close()
  })
  async function post(headers: object, body?: string): Promise<unknown> {
    const stream = session.request(
      { ':method': 'POST', ':path': '/files', ...headers },
      { endStream: body === undefined },
    )
    if (body !== undefined) stream.end(body)
    const [{ ':status': status }] = await once(stream, 'response')
    stream.resume()
    return status
  }
  expect(await post({ 'idempotency-key': 'key-1' })).toBe(200)
  const headers = { 'idempotency-key': 'key-2', 'content-type': MULTIPART }
  expect(await post(headers, file('one'))).toBe(500)
})
