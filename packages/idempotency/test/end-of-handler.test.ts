import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { describe, expect, test } from 'vitest'
import { createGate } from '../../../test/support/gate.ts'
import { until } from '../../../test/support/until.ts'
import { errorHandler, type IdempotencyOptions, idempotency } from '../src/index.ts'
import { createEmptyApp, FASTIFY_VERSIONS, isReplayed, memoryStore, post } from './support/app.ts'

type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown

describe.each(Object.entries(FASTIFY_VERSIONS))('with Fastify %s, a key', (_name, create) => {
  async function createCounting(
    handler: Handler,
    options: Partial<IdempotencyOptions> = {},
    route: object = {},
    later: (app: FastifyInstance) => void = () => {},
  ) {
    const { app, log, warnings } = createEmptyApp(create)
    await app.register(errorHandler)
    await app.register(idempotency, { store: memoryStore(), ...options })
    later(app)
    let runs = 0
    app.post('/things/:id', route, (request, reply) => {
      runs++
      return handler(request, reply)
    })
    return { app, log, warnings, runs: () => runs }
  }

  const inProgress = async (app: FastifyInstance) =>
    (await post(app)).json().code === 'request-in-progress'

  test('is released when the handler returns, not when it sends a 500 and works on', async () => {
    const gate = createGate()
    const { app, runs } = await createCounting(async (_request, reply) => {
      reply.code(500).send('failed')
      await gate.pass()
    })
    expect((await post(app)).statusCode).toBe(500)
    expect(await inProgress(app)).toBe(true)
    expect(await inProgress(app)).toBe(true)
    expect(runs()).toBe(1)
    gate.open()
    await until(async () => (await post(app)).statusCode === 500)
    expect(runs()).toBe(2)
  })

  test('is released when the handler fails after it has sent a 500', async () => {
    const gate = createGate()
    const { app, runs } = await createCounting(async (_request, reply) => {
      reply.code(500).send('failed')
      await gate.pass()
      throw new Error('failed later')
    })
    expect((await post(app)).statusCode).toBe(500)
    expect(await inProgress(app)).toBe(true)
    gate.open()
    await until(async () => (await post(app)).statusCode === 500)
    expect(runs()).toBe(2)
  })

  test('is completed by a response that is a result, while the handler works on', async () => {
    const gate = createGate()
    const { app, runs } = await createCounting(async (_request, reply) => {
      reply.code(201).send('done')
      await gate.pass()
    })
    expect((await post(app)).body).toBe('done')
    expect(isReplayed(await post(app))).toBe(true)
    expect(runs()).toBe(1)
    gate.open()
  })

  test('is released after a handler that returns the reply', async () => {
    const { app, runs } = await createCounting(async (_request, reply) =>
      reply.code(500).send('failed'),
    )
    await post(app)
    await until(async () => (await post(app)).statusCode === 500)
    expect(runs()).toBe(2)
  })

  test('is released after a handler without a promise, that responds later', async () => {
    const { app, runs } = await createCounting((_request, reply) => {
      setImmediate(() => reply.code(500).send('failed'))
    })
    expect((await post(app)).statusCode).toBe(500)
    expect((await post(app)).statusCode).toBe(500)
    expect(runs()).toBe(2)
  })

  test('belongs to one run of a lazy thenable, such as a query builder', async () => {
    let queries = 0
    const { app } = await createCounting(() => ({
      // biome-ignore lint/suspicious/noThenProperty: that is what the test is about
      then: (resolve: (value: string) => void) => {
        queries++
        resolve('done')
      },
    }))
    expect((await post(app)).body).toBe('done')
    expect(isReplayed(await post(app))).toBe(true)
    expect(queries).toBe(1)
  })

  test('is released when a hook after the claim responds, and the handler does not run', async () => {
    let isRefused = true
    const refuse = async (_request: FastifyRequest, reply: FastifyReply) => {
      if (isRefused) return reply.code(403).send('refused')
      return undefined
    }
    const { app, runs } = await createCounting(
      () => 'done',
      {},
      {},
      (app) =>
        app.addHook('onRoute', function (route) {
          this.after(() => {
            route.preHandler = [route.preHandler ?? [], refuse].flat()
          })
        }),
    )
    expect((await post(app)).body).toBe('refused')
    isRefused = false
    expect((await post(app)).body).toBe('done')
    expect(runs()).toBe(1)
  })

  test('keeps the empty response of a handler whose client has gone', async () => {
    const gate = createGate()
    const { app, runs } = await createCounting(async () => {
      await gate.pass()
    })
    const url = await app.listen({ port: 0, host: '127.0.0.1' })
    const aborting = new AbortController()
    const headers = { 'idempotency-key': 'key', 'content-type': 'application/json' }
    const gone = fetch(`${url}/things/1`, {
      ...{ method: 'POST', headers, body: '{"a":1}' },
      signal: aborting.signal,
    })
    await until(() => gate.arrived === 1)
    aborting.abort()
    await expect(gone).rejects.toThrow()
    await until(async () => {
      const connections = await new Promise<number>((resolve) =>
        app.server.getConnections((_error, count) => resolve(count)),
      )
      return connections === 0
    })
    gate.open()
    await until(async () => isReplayed(await post(app)))
    expect(await post(app)).toMatchObject({ statusCode: 200, body: '' })
    expect(runs()).toBe(1)
  })
})

test('a key is released when the handler returns, not when handlerTimeout responds', async () => {
  const gate = createGate()
  const { app } = createEmptyApp()
  await app.register(idempotency, { store: memoryStore() })
  let runs = 0
  app.post('/things/:id', { handlerTimeout: 20 }, async () => {
    runs++
    await gate.pass()
    return 'done'
  })
  expect((await post(app)).statusCode).toBe(503)
  expect((await post(app)).statusCode).toBe(409)
  expect(runs).toBe(1)
  gate.open()
  await until(async () => (await post(app)).body === 'done')
  expect(runs).toBe(2)
})

test('a key is released if handlerTimeout responds before the store does', async () => {
  const gate = createGate()
  const inner = memoryStore()
  const { app } = createEmptyApp()
  await app.register(idempotency, {
    store: {
      ...inner,
      claim: async (...args) => {
        await gate.pass()
        return inner.claim(...args)
      },
    },
  })
  app.post('/things/:id', { handlerTimeout: 20 }, async () => 'done')
  expect((await post(app)).statusCode).toBe(503)
  gate.open()
  await until(async () => (await post(app)).body === 'done')
})
