import { describe, expect, test, vi } from 'vitest'
import { createApp, isReplayed, memoryStore, post } from './support/app.ts'

describe('a response', () => {
  test.each([200, 201, 202, 301, 302, 400, 402, 404, 410, 413, 422, 451])(
    'of %i is a result, and is replayed',
    async (status) => {
      const { app, runs } = await createApp((_request, reply) =>
        reply.code(status).send({ status }),
      )
      const first = await post(app)
      const repeat = await post(app)
      expect(repeat).toMatchObject({ statusCode: status, body: first.body })
      expect(isReplayed(repeat)).toBe(true)
      expect(runs()).toBe(1)
    },
  )

  test.each([401, 403, 407, 408, 409, 412, 421, 423, 425, 428, 429, 500, 502, 503, 504])(
    'of %i is none: a repeat runs the handler again',
    async (status) => {
      const onRelease = vi.fn()
      const { app, runs } = await createApp(
        (_request, reply) => reply.code(status).send({ status }),
        { onRelease },
      )
      await post(app)
      expect(isReplayed(await post(app))).toBe(false)
      expect(runs()).toBe(2)
      expect(onRelease).toHaveBeenCalledTimes(2)
    },
  )

  test.each([
    [202, 1],
    [201, 1],
    [303, 1],
    [404, 2],
    [400, 2],
  ])('of %i with a Retry-After makes %i runs of two requests', async (status, expected) => {
    const { app, runs } = await createApp((_request, reply) =>
      reply.code(status).header('retry-after', '5').send({}),
    )
    await post(app)
    await post(app)
    expect(runs()).toBe(expected)
  })

  test('is stored by the status and the reply that the option remembers gets', async () => {
    const { app, runs } = await createApp(
      (_request, reply) => reply.code(503).header('x-final', 'yes').send({}),
      { remembers: (status, reply) => status === 503 && reply.getHeader('x-final') === 'yes' },
    )
    await post(app)
    expect(isReplayed(await post(app))).toBe(true)
    expect(runs()).toBe(1)
  })

  test.each([
    ['a text', () => 'done'],
    ['a Response', () => new Response('done')],
  ])(
    'that is %s is sent, and its key released, if the option remembers fails',
    async (_name, handler) => {
      const store = memoryStore()
      const { app, warnings } = await createApp(handler, {
        store,
        remembers: () => {
          throw new Error('a bug')
        },
      })
      expect((await post(app)).body).toBe('done')
      expect((await post(app)).body).toBe('done')
      expect(warnings[0]).toBe('the option remembers has failed; releasing the key')
    },
  )
})
