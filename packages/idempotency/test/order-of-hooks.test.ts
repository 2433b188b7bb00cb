import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify'
import { describe, expect, test } from 'vitest'
import { type IdempotencyOptions, idempotency } from '../src/index.ts'
import { createEmptyApp, FASTIFY_VERSIONS, isReplayed, memoryStore, post } from './support/app.ts'

/** Refuses a request without a token. */
const authenticate = async (request: FastifyRequest, reply: FastifyReply) => {
  if (request.headers.authorization !== undefined) return
  return reply.code(401).send('no token')
}

const TOKEN = { authorization: 'token' }

/** Sends a request twice with a token, and once without. */
async function postThreeTimes(app: FastifyInstance) {
  const first = await post(app, {}, TOKEN)
  const repeat = await post(app, {}, TOKEN)
  const stranger = await post(app, {})
  return { first, repeat, stranger }
}

/** A stranger gets a refusal, the caller with the token a replay. */
async function expectProtection(app: FastifyInstance) {
  const { first, repeat, stranger } = await postThreeTimes(app)
  expect(first.body).toBe('done')
  expect(isReplayed(first)).toBe(false)
  expect(repeat.body).toBe('done')
  expect(isReplayed(repeat)).toBe(true)
  expect(stranger).toMatchObject({ statusCode: 401, body: 'no token' })
}

describe.each(Object.entries(FASTIFY_VERSIONS))('with Fastify %s, the plugin', (_name, create) => {
  /** An application with the plugin, but without routes. */
  async function createProtected(options: Partial<IdempotencyOptions> = {}) {
    const created = createEmptyApp(create)
    await created.app.register(idempotency, { store: memoryStore(), ...options })
    return created
  }

  test('replays nothing to a stranger that a preHandler of the route refuses', async () => {
    const { app } = await createProtected()
    app.post('/things/:id', { preHandler: authenticate }, () => 'done')
    await expectProtection(app)
  })

  test('replays nothing to a stranger that the last of several preHandlers refuses', async () => {
    const { app } = await createProtected()
    const preHandler = [async () => {}, authenticate]
    app.post('/things/:id', { preHandler }, () => 'done')
    await expectProtection(app)
  })

  test('replays nothing to a stranger that a later hook of the scope refuses', async () => {
    const { app } = await createProtected()
    app.addHook('preHandler', authenticate)
    app.post('/things/:id', () => 'done')
    await expectProtection(app)
  })

  test('replays nothing to a stranger that a later plugin refuses by an onRoute hook', async () => {
    const { app } = await createProtected()
    app.addHook('onRoute', (route) => {
      route.preHandler = [route.preHandler ?? [], authenticate].flat()
    })
    app.post('/things/:id', () => 'done')
    await expectProtection(app)
  })

  test('replays nothing to a stranger in a scope within its own', async () => {
    const { app } = await createProtected()
    await app.register(async (inner) => {
      inner.addHook('preHandler', authenticate)
      inner.post('/things/:id', { preHandler: async () => {} }, () => 'done')
    })
    await expectProtection(app)
  })

  test('does not change the arrays of hooks that it finds', async () => {
    const { app } = await createProtected()
    const shared = [authenticate]
    app.post('/things/:id', { preHandler: shared, preValidation: shared }, () => 'done')
    app.get('/things/:id', { preHandler: shared }, () => 'read')
    await app.ready()
    expect(shared).toEqual([authenticate])
    const read = await app.inject({ url: '/things/1', headers: TOKEN })
    expect(read.body).toBe('read')
  })

  test('runs the preHandlers on each replay, with request.idempotency null in them', async () => {
    const { app } = await createProtected()
    const seen: unknown[] = []
    const look = async (request: FastifyRequest) => void seen.push(request.idempotency)
    app.post('/things/:id', { preHandler: look }, (request) => `${request.idempotency?.key}`)
    expect((await post(app)).body).toBe('key')
    expect((await post(app)).body).toBe('key')
    expect(seen).toEqual([null, null])
  })

  test('stores no refusal of another hook, and runs the handler when the hook lets it pass', async () => {
    const { app } = await createProtected()
    app.post('/things/:id', { preHandler: authenticate }, () => 'done')
    expect((await post(app)).statusCode).toBe(401)
    expect((await post(app, {}, TOKEN)).body).toBe('done')
  })

  test('responds with 500 on a route that was declared before, and logs its name', async () => {
    const { app, log } = createEmptyApp(create)
    app.post('/things/:id', () => 'unprotected')
    app.get('/things/:id', () => 'read')
    await app.register(idempotency, { store: memoryStore() })
    app.post('/later/:id', () => 'done')
    expect((await post(app)).statusCode).toBe(500)
    expect(log[0]?.msg).toContain(
      'POST /things/:id was declared before the plugin @order-once/idempotency was registered',
    )
    expect((await app.inject('/things/1')).body).toBe('read')
  })

  test('responds with 500 on a route that did not await the registration', async () => {
    const { app } = createEmptyApp(create)
    app.register(idempotency, { store: memoryStore() })
    app.post('/things/:id', () => 'unprotected')
    expect((await post(app)).statusCode).toBe(500)
  })

  test('leaves an unknown path alone, also one that a handler reports', async () => {
    const { app } = await createProtected()
    let exists = false
    app.post('/things/*', (_request, reply) => {
      if (!exists) return reply.callNotFound()
      return 'done'
    })
    const unknown = {
      method: 'POST',
      url: '/unknown',
      headers: { 'idempotency-key': 'key' },
    } as const
    for (let i = 0; i < 2; i++) {
      const reply = await app.inject(unknown)
      expect(reply.statusCode).toBe(404)
      expect(isReplayed(reply)).toBe(false)
    }
    expect((await post(app)).statusCode).toBe(404)
    exists = true
    expect((await post(app)).body).toBe('done')
    expect((await app.inject({ method: 'POST', url: '/unknown' })).statusCode).toBe(404)
  })

  test('protects both paths of a route with a prefix', async () => {
    const { app } = await createProtected()
    let runs = 0
    await app.register(
      async (things) => {
        things.post('/', () => `${++runs}`)
      },
      { prefix: '/things' },
    )
    for (const url of ['/things', '/things/']) {
      const send = () =>
        app.inject({ method: 'POST', url, headers: { 'idempotency-key': `key-${url.length}` } })
      const first = await send()
      expect(await send()).toMatchObject({ statusCode: 200, body: first.body })
    }
    expect(runs).toBe(2)
  })

  test('protects a method of its options in lower case', async () => {
    const { app } = await createProtected({ methods: ['put'] })
    let runs = 0
    app.put('/things/:id', () => `${++runs}`)
    const put = () =>
      app.inject({ method: 'PUT', url: '/things/1', headers: { 'idempotency-key': 'key' } })
    expect((await put()).body).toBe('1')
    expect((await put()).body).toBe('1')
  })

  test('stops the start if it has no store', async () => {
    const { app } = createEmptyApp(create)
    const register = async () => app.register(idempotency, {} as IdempotencyOptions)
    await expect(register()).rejects.toThrow('needs the option store')
  })
})

test('an application may close although the plugin could not start', async () => {
  const app = fastify()
  app.register(idempotency, {} as IdempotencyOptions)
  await expect(app.ready()).rejects.toThrow('needs the option store')
  await app.close()
})
