/** Requests that clients sign with keys of their own, over HTTP. */
import { describe, expect, test } from 'vitest'
import { newKey, ORDER, type Send, send, sendAll, sign } from '../support/client.ts'
import { writeClientsFile } from '../support/clients-file.ts'
import {
  createKey,
  createKeys,
  nowSeconds,
  type Signing,
  signMessage,
} from '../support/message-signature.ts'
import { startService } from '../support/service.ts'

const KEYS = createKeys()
const KEY = createKey('shop-2-key')
const SECRET = 'a secret of the default client'
const COVERED = '("@method" "@authority" "@path" "content-digest" "content-type" "idempotency-key")'

/** Starts a service with two clients; `X-Signature` is on only if a secret is given. */
async function startShops(env: Record<string, string> = {}) {
  const file = await writeClientsFile([
    { id: 'shop-1', keys: KEYS },
    { id: 'shop-2', keys: [KEY] },
  ])
  return startService({ env: { CLIENTS_FILE: file, ...env } })
}

/** Signs an order as it is sent to the service. @returns what another could capture and send again */
function captureOrder(port: number, signing: Signing = {}) {
  const body = JSON.stringify(ORDER)
  const headers = signMessage(
    KEY,
    { authority: `127.0.0.1:${port}`, body, headers: { 'idempotency-key': newKey() } },
    signing,
  )
  return { body, headers }
}

/** Sends a captured request, with changes. */
const resend = (
  port: number,
  { body, headers }: ReturnType<typeof captureOrder>,
  { headers: changed = {}, ...changes }: Send = {},
) =>
  send(port, { key: null, signature: null, body, headers: { ...headers, ...changed }, ...changes })

describe('a request with a message signature', () => {
  test.each(KEYS)('creates an order with $algorithm', async (signingKey) => {
    const { port, countOrders, database } = await startShops()
    expect((await send(port, { signingKey })).status).toBe(201)
    expect(await countOrders()).toBe(1)
    expect(await database.sql`select client_id from orders`).toEqual([{ client_id: 'shop-1' }])
  })

  test('is the only kind that is accepted without a secret; the published one does not count', async () => {
    const { port } = await startShops()
    const reply = await send(port)
    expect(reply).toMatchObject({ status: 401, json: { code: 'signature-missing' } })
    expect(reply.headers['www-authenticate']).toBe(
      'HTTP-Message-Signature header="Signature-Input"',
    )
    expect(reply.headers['accept-signature']).toBe(`sig1=${COVERED};created`)
    const read = await send(port, { method: 'GET', path: '/orders?idempotency_key=a' })
    expect(read.headers['accept-signature']).toBe(
      'sig1=("@method" "@authority" "@path" "@query");created',
    )
  })

  test('is judged by that alone, even if its X-Signature is right', async () => {
    const { port } = await startShops({ HMAC_SECRET: SECRET })
    const body = JSON.stringify(ORDER)
    const headers = { 'x-signature': sign(body, SECRET) }
    const captured = captureOrder(port)
    expect((await send(port, { body, headers, signature: null })).status).toBe(201)
    const wrong = { ...headers, signature: 'sig1=:AAAA:' }
    const reply = await resend(port, captured, { headers: wrong })
    expect(reply).toMatchObject({ status: 401, json: { code: 'signature-invalid' } })
    expect(reply.headers['www-authenticate']).toBe(
      'HMAC-SHA256 header="X-Signature", HTTP-Message-Signature header="Signature-Input"',
    )
    const missing = await send(port, { signature: null })
    expect(missing.json).toMatchObject({
      code: 'signature-missing',
      detail: 'A signature is required: X-Signature, or Signature-Input and Signature.',
    })
  })

  test('is not judged by that without CLIENTS_FILE', async () => {
    const { port } = await startService()
    const { headers } = captureOrder(port)
    const { 'signature-input': input = '', signature = '' } = headers
    const reply = await send(port, { headers: { 'signature-input': input, signature } })
    expect(reply.status).toBe(201)
    expect((await send(port, { signingKey: KEY, signature: null })).json.code).toBe(
      'signature-missing',
    )
  })

  test('without an Idempotency-Key is refused: the key must be covered', async () => {
    const { port } = await startShops()
    const body = JSON.stringify(ORDER)
    const components = ['@method', '@authority', '@path', 'content-digest', 'content-type']
    const reply = await send(port, { signingKey: KEY, body, key: null, signing: { components } })
    expect(reply.json).toMatchObject({
      code: 'signature-invalid',
      detail: 'Signature-Input must cover "idempotency-key".',
    })
  })

  test('learns nothing about its body and key from the refusal of its signature', async () => {
    const { port } = await startShops()
    const stranger = { ...createKey('stranger'), kid: KEY.kid }
    for (const wrong of [{ body: '{bad' }, { key: 'a,b' }, { body: ORDER }]) {
      const reply = await send(port, { ...wrong, signingKey: stranger })
      expect(reply).toMatchObject({ status: 401, json: { code: 'signature-invalid' } })
      expect(reply.headers['x-ratelimit-limit']).toBeUndefined()
    }
  })

  test('covers the authority of PUBLIC_URL, if that is set, and no other', async () => {
    const { port } = await startShops({ PUBLIC_URL: 'https://Orders.Example.com:443' })
    const body = JSON.stringify(ORDER)
    const post = (authority: string, headers: Record<string, string> = {}) =>
      send(port, {
        ...{ key: null, signature: null, body },
        headers: signMessage(KEY, {
          ...{ authority, body, headers: { 'idempotency-key': newKey(), ...headers } },
        }),
      })
    expect((await post('orders.example.com')).status).toBe(201)
    expect((await post('orders.example.com', { host: 'internal:1234' })).status).toBe(201)
    expect((await post(`127.0.0.1:${port}`)).status).toBe(401)
    const forwarded = { 'x-forwarded-host': 'evil.example.com' }
    expect((await post('evil.example.com', forwarded)).status).toBe(401)
    expect((await post('orders.example.com', forwarded)).status).toBe(201)
  })

  test('covers Host in lower case, without the default port', async () => {
    const { port } = await startShops({ HOST: '0.0.0.0' })
    for (const host of ['Shop.Example.COM', 'shop.example.com:443', 'shop.example.com:80']) {
      const { body, headers } = captureOrder(port)
      const signed = signMessage(KEY, {
        authority: 'shop.example.com',
        body,
        headers: {
          'idempotency-key': headers['idempotency-key'] ?? '',
        },
      })
      const reply = await send(port, {
        key: null,
        signature: null,
        body,
        headers: { ...signed, host },
      })
      expect(reply.status).toBe(201)
    }
  })
})

describe('a captured request', () => {
  test('that is sent again as it is gets the same order: a replay', async () => {
    const { port, countOrders } = await startShops()
    const captured = captureOrder(port)
    const first = await resend(port, captured)
    expect(first.status).toBe(201)
    const again = await resend(port, captured)
    expect(again).toMatchObject({ status: 201, text: first.text })
    expect(again.headers['idempotency-replayed']).toBe('true')
    expect(await countOrders()).toBe(1)
  })

  test('is refused with another key, path, body, method or authority', async () => {
    const { port, countOrders } = await startShops({ HMAC_SECRET: SECRET })
    const captured = captureOrder(port)
    const first = await resend(port, captured)
    const changes: Record<string, Send> = {
      'another key': { headers: { 'idempotency-key': newKey() } },
      'the key in quotes': {
        headers: { 'idempotency-key': `"${captured.headers['idempotency-key']}"` },
      },
      // which leads to the same route
      'another path': { path: '/%6frders' },
      'a query': { path: '/orders?' },
      'another body': { body: { ...ORDER, amount: 501 } },
      'another method': { method: 'GET', path: `${first.headers.location}` },
      'another authority': { headers: { host: `localhost:${port}` } },
      'another media type': { headers: { 'content-type': 'application/json; charset=utf-8' } },
      'another time': {
        headers: {
          'signature-input': `${captured.headers['signature-input']}`.replace(
            /created=\d+/,
            `created=${nowSeconds() + 1}`,
          ),
        },
      },
    }
    for (const [name, change] of Object.entries(changes)) {
      const { status, json } = await resend(port, captured, change)
      expect({ name, status, code: json.code }).toEqual({
        name,
        status: 401,
        code: 'signature-invalid',
      })
    }
    expect(await countOrders()).toBe(1)
  })

  test('is refused after its time, with the time of the service', async () => {
    const { port } = await startShops({ SIGNATURE_MAX_AGE_SECONDS: '10' })
    const keyid = `"${KEY.kid}"`
    for (const [skew, words] of [
      [-12, 'in the past'],
      [15, 'in the future'],
    ] as const) {
      const parameters = { created: nowSeconds() + skew, keyid }
      const { status, json } = await resend(port, captureOrder(port, { parameters }))
      expect({ status, code: json.code }).toEqual({ status: 401, code: 'signature-expired' })
      expect(json.detail).toContain(words)
      const [, seconds] = /The service has (\d+) \(/.exec(json.detail) ?? []
      expect(Math.abs(Number(seconds) - nowSeconds())).toBeLessThan(5)
    }
    const parameters = { created: nowSeconds(), expires: nowSeconds() - 1, keyid }
    const expired = await resend(port, captureOrder(port, { parameters }))
    expect(expired.json.code).toBe('signature-expired')
  })
})

describe('bad input', () => {
  test('of 100 KB in Signature-Input is refused with 431, and of more than 2 KiB with 401', async () => {
    const { port } = await startShops()
    for (const [length, status] of [
      [100_000, 431],
      [3_000, 401],
    ]) {
      const headers = { 'signature-input': `sig1=("${'a'.repeat(length ?? 0)}")` }
      const reply = await send(port, { signature: null, headers: { ...headers, signature: 'a' } })
      expect(reply.status).toBe(status)
    }
  })

  test('of many unknown keys is refused with 401, then with 429, for its address alone', async () => {
    const { port, logLines } = await startShops({ SIGNATURE_FAILURES_MAX: '50' })
    const replies = await sendAll(300, (i) =>
      send(port, { signingKey: { ...KEY, kid: `unknown-${i}` } }),
    )
    const statuses = replies.map(({ status }) => status)
    expect(statuses.filter((status) => status === 401)).toHaveLength(50)
    expect(statuses.filter((status) => status === 429)).toHaveLength(250)
    expect((await send(port, { signingKey: KEY })).status).toBe(201)
    expect(logLines.filter(({ level }) => Number(level) >= 50)).toEqual([])
  })
})
