import { describe, expect, test } from 'vitest'
import { createGate } from '../../../test/support/gate.ts'
import { until } from '../../../test/support/until.ts'
import { idempotency, Problem } from '../src/index.ts'
import { createEmptyApp, memoryStore, post } from './support/app.ts'

const ACP_CODES: Record<string, string> = {
  'idempotency-key-missing': 'idempotency_key_required',
  'idempotency-key-reused': 'idempotency_conflict',
  'request-in-progress': 'idempotency_in_flight',
}

/** An application as the README describes it for the Agentic Commerce Protocol. */
async function createCheckout(handler: () => unknown) {
  const { app } = createEmptyApp()
  app.setErrorHandler((error, _request, reply) => {
    if (!(error instanceof Problem)) throw error
    const code = ACP_CODES[error.code] ?? 'invalid'
    const body = { type: 'invalid_request', code, message: error.message }
    return reply.code(error.statusCode).headers(error.headers).send(body)
  })
  await app.register(idempotency, {
    store: memoryStore(),
    mismatchStatus: 422,
    scope: (request) => `client ${request.url}`,
  })
  app.addHook('onSend', async (request, reply) => {
    reply.header('idempotency-key', request.headers['idempotency-key'])
    if (reply.hasHeader('idempotency-replayed')) reply.header('idempotent-replayed', 'true')
  })
  app.post('/things/:id', handler)
  return app
}

describe('an application for the Agentic Commerce Protocol', () => {
  test('replays with the headers of the protocol, and keeps paths apart', async () => {
    let runs = 0
    const app = await createCheckout(() => ({ runs: ++runs }))
    const first = await post(app)
    const repeat = await post(app)
    expect(repeat.body).toBe(first.body)
    expect(first.headers).toMatchObject({ 'idempotency-key': 'key' })
    expect(first.headers['idempotent-replayed']).toBeUndefined()
    expect(repeat.headers).toMatchObject({
      'idempotency-key': 'key',
      'idempotent-replayed': 'true',
    })
    const headers = { 'idempotency-key': 'key' }
    const other = await app.inject({ method: 'POST', url: '/things/2', payload: { a: 1 }, headers })
    expect(other.json()).toEqual({ runs: 2 })
  })

  test('refuses with the codes of the protocol', async () => {
    const gate = createGate()
    const app = await createCheckout(async () => {
      await gate.pass()
      return 'done'
    })
    const missing = await app.inject({ method: 'POST', url: '/things/1' })
    expect(missing.statusCode).toBe(400)
    expect(missing.json()).toMatchObject({ code: 'idempotency_key_required' })
    const first = post(app)
    await until(() => gate.arrived === 1)
    const duplicate = await post(app)
    expect(duplicate.statusCode).toBe(409)
    expect(duplicate.headers['retry-after']).toBe('1')
    expect(duplicate.json()).toMatchObject({ code: 'idempotency_in_flight' })
    expect((await post(app, { a: null })).statusCode).toBe(422)
    expect((await post(app, {})).json()).toMatchObject({ code: 'idempotency_conflict' })
    gate.open()
    await first
  })
})
