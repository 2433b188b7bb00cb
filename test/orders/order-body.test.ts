import { request } from 'node:http'
import { describe, expect, test } from 'vitest'
import { newKey, ORDER, send, sign } from '../support/client.ts'
import { startService } from '../support/service.ts'

const formatBody = (amount: string) => `{"user_id":"user-1","item":"book","amount":${amount}}`

describe('the amount', () => {
  test.each([
    ['0.1', 0.1, '0.1000'],
    ['0.0001', 0.0001, '0.0001'],
    ['0.0007', 0.0007, '0.0007'],
    ['1e2', 100, '100.0000'],
    ['500', 500, '500.0000'],
    ['1.10', 1.1, '1.1000'],
    ['4.35', 4.35, '4.3500'],
    ['9007199254.7409', 9007199254.7409, '9007199254.7409'],
    ['99999999999.9999', 99999999999.9999, '99999999999.9999'],
  ])('%s is accepted and stored exactly', async (written, returned, stored) => {
    const { port, database } = await startService()
    const reply = await send(port, { body: formatBody(written) })
    expect(reply.status).toBe(201)
    expect(reply.json.order.amount).toBe(returned)
    const [row] = await database.sql`select amount::text from orders`
    expect(row?.amount).toBe(stored)
  })

  test.each([
    '0',
    '-0',
    '-1',
    '0.00001',
    '1e-5',
    '0.12345',
    '100000000000',
    '99999999999.99991',
    '1e30',
    '1e400',
    '"5"',
    'null',
    'true',
    '[5]',
    '{}',
  ])('%s is refused, with field and rule', async (written) => {
    const { port, countOrders } = await startService()
    const reply = await send(port, { body: formatBody(written) })
    expect(reply).toMatchObject({
      status: 400,
      json: {
        code: 'invalid-body',
        errors: [
          {
            field: 'amount',
            message:
              'must be a number greater than 0, at most 99999999999.9999, with at most 4 decimals',
          },
        ],
      },
    })
    expect(await countOrders()).toBe(0)
  })
})

describe('user_id and item', () => {
  test.each([
    ['one character', 'x'],
    ['255 characters', 'x'.repeat(255)],
    ['255 characters outside the basic plane', '🦊'.repeat(255)],
    ['combining marks, right-to-left text and quotes', 'e\u0301 שלום "\\\' \u2028 \u0001 \t'],
    ['SQL', "'; drop table orders; --"],
  ])('accept %s and return it unchanged', async (_name, text) => {
    const { port } = await startService()
    const key = newKey()
    const body = { user_id: text, item: text, amount: 1 }
    const reply = await send(port, { key, body })
    expect(reply.status).toBe(201)
    expect(reply.json.order).toMatchObject({ user_id: text, item: text })
    expect((await send(port, { key, body })).text).toBe(reply.text)
  })

  test.each([
    ['an empty string', '""'],
    ['white space', '" \\t\\n\\u3000"'],
    ['256 characters', JSON.stringify('x'.repeat(256))],
    ['a NUL', '"a\\u0000b"'],
    ['a lone high surrogate', '"a\\ud83e"'],
    ['a lone low surrogate', '"\\udd8aa"'],
    ['a number', '5'],
    ['null', 'null'],
    ['an object', '{"a":"b"}'],
  ])('refuse %s', async (_name, written) => {
    const { port } = await startService()
    const message =
      'must be a string of 1 to 255 characters, not blank, of well-formed Unicode without NUL'
    const reply = await send(port, { body: `{"user_id":${written},"item":${written},"amount":1}` })
    expect(reply).toMatchObject({
      status: 400,
      json: {
        code: 'invalid-body',
        errors: [
          { field: 'user_id', message },
          { field: 'item', message },
        ],
      },
    })
  })
})

describe('the body', () => {
  test('names every missing member', async () => {
    const { port } = await startService()
    const { json } = await send(port, { body: {} })
    expect(json.errors.map(({ field }: { field: string }) => field)).toEqual([
      'user_id',
      'item',
      'amount',
    ])
  })

  test.each(['extra', '__proto__', 'constructor', 'toString', 'idempotency_key'])(
    'refuses the unknown member %s by its name',
    async (name) => {
      const { port, countOrders } = await startService()
      const body = `{"user_id":"user-1","item":"book","amount":1,"${name}":{"a":1}}`
      const { status, json } = await send(port, { body })
      expect(status).toBe(400)
      expect(json.errors).toEqual([{ field: name, message: 'is not a member of an order' }])
      expect(json.detail).toContain(name)
      expect(await countOrders()).toBe(0)
    },
  )

  test.each([
    ['twice', '"amount":1,"amount":2'],
    ['with the same value', '"amount":1,"amount":1'],
    ['spelled with escapes', '"amount":1,"\\u0061mount":2'],
    ['in other places', '"amount":1,"item":"book","amount":2'],
    ['with white space', '"amount" : 1,\n"amount"\t: 2'],
  ])('that has a member %s is refused, with its name', async (_name, members) => {
    const { port, countOrders } = await startService()
    const body = `{"user_id":"user-1",${members.includes('book') ? '' : '"item":"book",'}${members}}`
    const { status, json } = await send(port, { body })
    expect(status).toBe(400)
    expect(json.errors).toEqual([{ field: 'amount', message: 'must not occur twice' }])
    expect(await countOrders()).toBe(0)
  })

  test('names a member that occurs twice beside other errors', async () => {
    const { port } = await startService()
    const { json } = await send(port, { body: '{"user_id":"a","user_id":"b","amount":1}' })
    expect(json.errors).toEqual([
      { field: 'item', message: 'is required' },
      { field: 'user_id', message: 'must not occur twice' },
    ])
  })

  test('may have texts that look like members', async () => {
    const { port } = await startService()
    const body = { user_id: '"item":"book"', item: '\\","item":"{', amount: 1 }
    expect((await send(port, { body })).status).toBe(201)
  })

  test.each([
    ['empty', ''],
    ['cut off', '{"user_id":'],
    ['with NaN', '{"user_id":"u","item":"i","amount":NaN}'],
    ['with a comment', '{} // order'],
    ['with a byte order mark', '\ufeff{}'],
    ['an array', '[]'],
    ['null', 'null'],
    ['a string', '"order"'],
  ])('that is %s is refused', async (_name, body) => {
    const { port } = await startService()
    const { status, json } = await send(port, { body })
    expect({ status, code: json.code }).toEqual({ status: 400, code: 'invalid-body' })
    expect(json.errors[0].field).toBe('body')
  })

  test('that is not UTF-8 is refused, not repaired', async () => {
    const { port } = await startService()
    const body = Buffer.from('{"user_id":"\xff","item":"book","amount":1}', 'latin1')
    const { status, json } = await send(port, { body })
    expect(status).toBe(400)
    expect(json.errors).toEqual([{ field: 'body', message: 'must be UTF-8' }])
  })

  test('with thousands of unknown members is refused with the first 12 errors', async () => {
    const { port } = await startService()
    const members = Array.from({ length: 5_000 }, (_, i) => `"a${i}":1`)
    const reply = await send(port, { body: `{${members}}` })
    expect(reply.status).toBe(400)
    expect(reply.json.errors).toHaveLength(12)
  })

  test.each([
    ['text/plain'],
    ['application/x-www-form-urlencoded'],
    ['application/jsonp'],
    ['application/problem+json'],
    ['json'],
  ])('of type %s is refused with 415', async (type) => {
    const { port } = await startService()
    const reply = await send(port, { headers: { 'content-type': type } })
    expect(reply).toMatchObject({ status: 415, json: { code: 'unsupported-media-type' } })
  })

  test.each(['gzip', 'identity, gzip', 'identity, identity', ''])(
    'with the Content-Encoding "%s" is refused with 415, and Accept-Encoding',
    async (coding) => {
      const { port } = await startService()
      const reply = await send(port, { headers: { 'content-encoding': coding } })
      expect(reply).toMatchObject({ status: 415, json: { code: 'unsupported-media-type' } })
      expect(reply.headers['accept-encoding']).toBe('identity')
    },
  )

  test.each(['identity', 'Identity'])(
    'with the Content-Encoding %s is accepted',
    async (coding) => {
      const { port } = await startService()
      expect((await send(port, { headers: { 'content-encoding': coding } })).status).toBe(201)
    },
  )

  test.each([
    'application/json; charset=utf-8',
    'Application/JSON',
    'application/json;charset=UTF-8',
  ])('of type %s is accepted', async (type) => {
    const { port } = await startService()
    expect((await send(port, { headers: { 'content-type': type } })).status).toBe(201)
  })

  test('of MAX_BODY_BYTES is accepted, and of one byte more refused', async () => {
    const { port } = await startService({ env: { MAX_BODY_BYTES: '1000' } })
    const padded = (size: number) => JSON.stringify(ORDER).padEnd(size)
    expect((await send(port, { body: padded(1000) })).status).toBe(201)
    const reply = await send(port, { body: padded(1001) })
    expect(reply).toMatchObject({ status: 413, json: { code: 'body-too-large' } })
    expect(reply.json.detail).toContain('1000 bytes')
  })

  test.each([
    ['a Content-Length', true],
    ['chunks', false],
  ])(
    'of 16 MB, sent with %s, is refused before it is read completely',
    async (_name, hasLength) => {
      const { port } = await startService()
      const chunk = Buffer.alloc(64 * 1024, ' ')
      const total = 16 * 1024 * 1024
      const { status, sent } = await new Promise<{ status: number | undefined; sent: number }>(
        (resolve, reject) => {
          let sent = 0
          const outgoing = request({
            host: '127.0.0.1',
            port,
            method: 'POST',
            path: '/orders',
            agent: false,
            headers: {
              'content-type': 'application/json',
              'idempotency-key': newKey(),
              'x-signature': sign(''),
              ...(hasLength && { 'content-length': total }),
            },
          })
          let status: number | undefined
          outgoing.on('response', (response) => {
            status = response.statusCode
            response.resume()
          })
          // After its response the service closes the connection, while more is being sent.
          outgoing.on('error', (error) => (status === undefined ? reject(error) : undefined))
          outgoing.on('close', () => resolve({ status, sent }))
          const write = () => {
            while (sent < total && !outgoing.destroyed) {
              sent += chunk.length
              if (!outgoing.write(chunk)) return
            }
            outgoing.end()
          }
          outgoing.on('drain', write)
          write()
        },
      )
      expect(status).toBe(413)
      expect(sent).toBeLessThan(total)
    },
  )
})
