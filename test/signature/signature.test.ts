import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { ORDER, send, sign } from '../support/client.ts'
import { startService } from '../support/service.ts'

describe('the signature', () => {
  test('is required', async () => {
    const { port } = await startService()
    const reply = await send(port, { signature: null })
    expect(reply).toMatchObject({ status: 401, json: { code: 'signature-missing' } })
    expect(reply.json.detail).toContain('X-Signature')
    expect(reply.headers['www-authenticate']).toContain('HMAC-SHA256')
  })

  test('must be the HMAC of the body: any other is refused, with WWW-Authenticate', async () => {
    const { port, countOrders } = await startService()
    const right = sign(JSON.stringify(ORDER))
    const wrong = [
      '0'.repeat(64),
      right.slice(0, -1),
      `${right}0`,
      `${right.slice(0, -1)}g`,
      // only the last or the first digit is wrong
      `${right.slice(0, -1)}${right.endsWith('0') ? '1' : '0'}`,
      `${right.startsWith('0') ? '1' : '0'}${right.slice(1)}`,
      '',
      sign(JSON.stringify(ORDER), 'another secret'),
      sign(JSON.stringify({ ...ORDER, amount: 501 })),
    ]
    for (const signature of wrong) {
      const reply = await send(port, { signature })
      expect(reply).toMatchObject({ status: 401, json: { code: 'signature-invalid' } })
      expect(reply.headers['www-authenticate']).toContain('HMAC-SHA256')
    }
    expect(await countOrders()).toBe(0)
  })

  test.each([
    ['wrong', { signature: '0'.repeat(64) }, {}],
    ['right, but the client beyond its limit', {}, { RATE_LIMIT_MAX: '1' }],
  ])('is checked before the body is parsed: %s', async (_name, options, env) => {
    const { port } = await startService({ env })
    await send(port, options)
    const parse = vi.spyOn(JSON, 'parse')
    onTestFinished(() => parse.mockRestore())
    const body = '{"not_an_order":true}'
    const { status } = await send(port, { ...options, body })
    expect([401, 429]).toContain(status)
    expect(parse).not.toHaveBeenCalledWith(body)
    parse.mockClear()
    expect((await send(await startService().then(({ port }) => port), { body })).status).toBe(400)
    expect(parse).toHaveBeenCalledWith(body)
  })

  test('in another form is refused with words that name the form', async () => {
    const { port } = await startService()
    const right = sign(JSON.stringify(ORDER))
    const base64 = Buffer.from(right, 'hex').toString('base64')
    for (const [signature, words] of [
      [`sha256=${right}`, 'begins with sha256='],
      [`SHA256=${right}`, 'begins with sha256='],
      [base64, 'is in base64'],
      [base64.replace('=', ''), 'is in base64'],
      [Buffer.from(right, 'hex').toString('base64url'), 'is in base64'],
      [`v1=${right}`, 'has the form v1=<signature>'],
      [`t=1795000000,v1=${right}`, 'has the form v1=<signature>'],
    ]) {
      const { status, json } = await send(port, { signature: `${signature}` })
      expect({ status, code: json.code }).toEqual({ status: 401, code: 'signature-invalid' })
      expect(json.detail).toContain(words)
      expect(json.detail).not.toContain(right)
    }
  })

  test('is refused if it is sent twice', async () => {
    const { port } = await startService()
    const right = sign(JSON.stringify(ORDER))
    const reply = await send(port, { signature: null, headers: { 'x-signature': [right, right] } })
    expect(reply.json.code).toBe('signature-invalid')
  })

  test('is accepted in lower and in upper case', async () => {
    const { port } = await startService()
    const signature = sign(JSON.stringify(ORDER))
    expect((await send(port, { signature })).status).toBe(201)
    expect((await send(port, { signature: signature.toUpperCase() })).status).toBe(201)
  })

  test('covers the exact bytes, white space and escapes included', async () => {
    const { port } = await startService()
    const body = '{ "user_id": "us\\u0065r-1",\n "item":"b\\u006fok", "amount": 5e2 }\n'
    expect((await send(port, { body })).status).toBe(201)
    expect((await send(port, { body, signature: sign(body.trim()) })).status).toBe(401)
  })

  test('is accepted with each of several secrets, so that clients can change from one to the next', async () => {
    const { port } = await startService({ env: { HMAC_SECRET: 'old secret,new secret' } })
    expect((await send(port, { secret: 'old secret' })).status).toBe(201)
    expect((await send(port, { secret: 'new secret' })).status).toBe(201)
    expect((await send(port, { secret: 'old secret,new secret' })).status).toBe(401)
  })

  test('is refused with 429 if it is wrong too often; valid ones from the same address are accepted', async () => {
    const { port } = await startService({ env: { SIGNATURE_FAILURES_MAX: '3' } })
    const statuses = []
    for (let i = 0; i < 5; i++) {
      const reply = await send(port, { signature: i % 2 ? null : '0'.repeat(64) })
      statuses.push(reply.status)
      if (reply.status === 429) expect(reply.headers['retry-after']).toMatch(/^[1-9]\d?$/)
    }
    expect(statuses).toEqual([401, 401, 401, 429, 429])
    expect((await send(port)).status).toBe(201)
  })

  test('is accepted with the secret of HMAC_SECRET only', async () => {
    const { port } = await startService({ env: { HMAC_SECRET: 'pässword' } })
    expect((await send(port, { secret: 'pässword' })).status).toBe(201)
    expect((await send(port)).status).toBe(401)
  })
})
