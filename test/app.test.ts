import { describe, expect, test } from 'vitest'
import { newKey, ORDER, send } from './support/client.ts'
import { startService } from './support/service.ts'

describe('the pipeline', () => {
  test('tells a caller with a wrong signature nothing about a malformed body', async () => {
    const { port } = await startService()
    for (const wrong of [
      { body: '{bad' },
      { body: { ...ORDER, amount: -1 } },
      { body: '' },
      { headers: { 'content-type': 'text/plain' } },
      { headers: { 'content-type': 'not a media type' } },
      { headers: { 'content-encoding': 'gzip' } },
    ]) {
      const reply = await send(port, { ...wrong, signature: '0'.repeat(64) })
      expect(reply).toMatchObject({ status: 401, json: { code: 'signature-invalid' } })
      expect(reply.headers['x-ratelimit-limit']).toBeUndefined()
    }
  })

  test('tells a caller with a wrong signature nothing about the key', async () => {
    const { port } = await startService()
    const used = newKey()
    await send(port, { key: used })
    for (const key of [null, '"', used]) {
      expect(await send(port, { key, signature: '0'.repeat(64) })).toMatchObject({
        status: 401,
        json: { code: 'signature-invalid' },
      })
    }
  })

  test('counts a signed request whose body is malformed, and answers 429 before 400', async () => {
    const { port } = await startService({ env: { RATE_LIMIT_MAX: '2' } })
    const replies = []
    for (let i = 0; i < 3; i++) replies.push(await send(port, { body: '{bad' }))
    expect(replies.map(({ status }) => status)).toEqual([400, 400, 429])
  })

  test('checks the body before the key', async () => {
    const { port } = await startService()
    expect((await send(port, { body: '{bad', key: null })).json.code).toBe('invalid-body')
  })

  test('never claims a key for a body that is refused: it stays free for the corrected one', async () => {
    const { port } = await startService()
    const key = newKey()
    expect((await send(port, { key, body: { ...ORDER, amount: 0 } })).status).toBe(400)
    const corrected = await send(port, { key })
    expect(corrected.status).toBe(201)
    expect(corrected.headers['idempotency-replayed']).toBeUndefined()
  })

  test('never claims a key for a request beyond the rate limit', async () => {
    const { port, countOrders } = await startService({
      env: { RATE_LIMIT_MAX: '1', RATE_LIMIT_WINDOW_SECONDS: '1' },
    })
    await send(port)
    const key = newKey()
    expect((await send(port, { key })).status).toBe(429)
    expect(await countOrders()).toBe(1)
  })
})
