import { fastify } from 'fastify'
import { describe, expect, onTestFinished, test } from 'vitest'
import { errorHandler, Problem, problems } from '../src/index.ts'

describe('a refusal', () => {
  test('is an Error without a stack of its own', () => {
    const refusal = problems.keyMissing()
    expect(refusal).toBeInstanceOf(Error)
    expect(refusal).toBeInstanceOf(Problem)
    expect(Object.hasOwn(refusal, 'stack')).toBe(false)
    expect((refusal as Error).stack).toBeUndefined()
    expect(String(refusal)).toBe('Problem: Idempotency-Key is required.')
  })

  test('has the status that the draft or the application wants for another request', () => {
    expect(problems.keyReused(409).statusCode).toBe(409)
    expect(problems.keyReused(422)).toMatchObject({
      statusCode: 422,
      code: 'idempotency-key-reused',
      title: 'The Idempotency-Key belongs to another request',
    })
  })
})

describe('the error handler', () => {
  /** Sends a request whose handler throws this. */
  async function send(error: Error, options: { typeBaseUrl?: string } = {}) {
    const app = fastify()
    onTestFinished(() => app.close())
    await app.register(errorHandler, options)
    app.get('/', () => {
      throw error
    })
    return app.inject('/')
  }

  test('sends a refusal as a problem document, with its headers', async () => {
    const errors = [{ field: 'amount', message: 'must be positive' }]
    const headers = { 'retry-after': '7' }
    const type = { status: 418, title: 'A title' }
    const reply = await send(new Problem('a-code', type, 'A detail.', { headers, errors }))
    expect(reply.statusCode).toBe(418)
    expect(reply.headers).toMatchObject({
      'content-type': 'application/problem+json; charset=utf-8',
      'retry-after': '7',
    })
    expect(reply.json()).toEqual({
      type: 'about:blank',
      title: 'A title',
      status: 418,
      detail: 'A detail.',
      code: 'a-code',
      errors,
    })
  })

  test('sends the address of the code as the type, if it has a base', async () => {
    const reply = await send(problems.keyMissing(), {
      typeBaseUrl: 'https://example.com/problems/',
    })
    expect(reply.json()).toEqual({
      type: 'https://example.com/problems/idempotency-key-missing',
      title: 'The Idempotency-Key header is missing',
      status: 400,
      detail: 'Idempotency-Key is required.',
      code: 'idempotency-key-missing',
    })
  })

  test('passes every other error on to the handler of Fastify', async () => {
    const reply = await send(Object.assign(new Error('Pay first.'), { statusCode: 402 }))
    expect(reply.statusCode).toBe(402)
    expect(reply.json()).toEqual({
      statusCode: 402,
      error: 'Payment Required',
      message: 'Pay first.',
    })
  })
})
