import { randomUUID } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { newKey, ORDER, type Reply, type Send, send } from '../support/client.ts'
import { writeClientsFile } from '../support/clients-file.ts'
import { createKey } from '../support/message-signature.ts'
import { startService } from '../support/service.ts'
import { hasRedis } from '../support/stores.ts'

const SHOP_1 = createKey('shop-1-key')
const SHOP_2 = createKey('shop-2-key', 'hmac-sha256')
const SECRET = 'a secret of the default client'

const startShops = async (env: Record<string, string> = {}) =>
  startService({
    env: {
      CLIENTS_FILE: await writeClientsFile([
        { id: 'shop-1', keys: [SHOP_1] },
        { id: 'shop-2', keys: [SHOP_2] },
      ]),
      HMAC_SECRET: SECRET,
      ...env,
    },
  })

const read = (port: number, path: string, signer: Send = {}): Promise<Reply> =>
  send(port, { method: 'GET', path, ...signer })
const readByKey = (port: number, key: string, signer?: Send) =>
  read(port, `/orders?idempotency_key=${encodeURIComponent(key)}`, signer)

describe('the response to a new order', () => {
  test.each(['memory', 'postgres', ...(hasRedis ? ['redis'] : [])])(
    'has its path in Location, and so have its replays, with records in %s',
    async (store) => {
      const redis = store === 'redis'
      const { port } = await startService({ redis, env: { IDEMPOTENCY_STORE: store } })
      const key = newKey()
      const first = await send(port, { key })
      expect(first.headers.location).toBe(`/orders/${first.json.order.id}`)
      for (let i = 0; i < 3; i++) {
        const replay = await send(port, { key })
        expect(replay.headers['idempotency-replayed']).toBe('true')
        expect(replay.headers.location).toBe(first.headers.location)
      }
    },
  )
})

describe('an order', () => {
  test('is read by its id and by its key, with the very bytes of its 201, in both schemes', async () => {
    const { port } = await startShops()
    for (const signer of [{ secret: SECRET }, { signingKey: SHOP_1 }, { signingKey: SHOP_2 }]) {
      const key = `${newKey()}:/?#[]@!$&'()*+;=%~`
      const created = await send(port, { ...signer, key })
      const found = [
        await read(port, `${created.headers.location}`, signer),
        await read(
          port,
          `${created.headers.location}`.toUpperCase().replace('ORDERS', 'orders'),
          signer,
        ),
        await readByKey(port, key, signer),
        await readByKey(port, `"${key}"`, signer),
      ]
      for (const { status, text, headers } of found) {
        expect({ status, text }).toEqual({ status: 200, text: created.text })
        expect(headers['content-type']).toBe('application/json; charset=utf-8')
        expect(headers['idempotency-replayed']).toBeUndefined()
      }
    }
  })

  test('of another client is not found, with the same 404 as one that does not exist', async () => {
    const { port } = await startShops()
    const key = newKey()
    const { headers } = await send(port, { signingKey: SHOP_1, key })
    for (const signer of [{ secret: SECRET }, { signingKey: SHOP_2 }]) {
      const pairs = [
        [await read(port, `${headers.location}`, signer), `/orders/${randomUUID()}`],
        [await readByKey(port, key, signer), `/orders?idempotency_key=${newKey()}`],
      ] as const
      for (const [reply, unknown] of pairs) {
        const { instance: _, ...document } = reply.json
        expect(document).toMatchObject({ status: 404, code: 'order-not-found', retryable: false })
        const { instance: __, ...other } = (await read(port, unknown, signer)).json
        expect(document).toEqual(other)
      }
    }
  })

  test('is not found by what is no id', async () => {
    const { port } = await startService()
    for (const id of ['1', 'key-001', '%00', '..%2f', `${randomUUID()}0`, '*']) {
      expect(await read(port, `/orders/${id}`)).toMatchObject({
        status: 404,
        json: { code: 'order-not-found' },
      })
    }
  })

  test.each([
    ...['', '?', '?idempotency_key', '?idempotency_key=', '?idempotency_key=a&idempotency_key=a'],
    ...['?idempotency_key=a&b=1', '?a=1', '?idempotency_key=%zz', '?idempotency_key=a%20b'],
    ...[
      '?idempotency_key=%ff',
      '?key=a',
      '#?idempotency_key=a&',
      `?idempotency_key=${'k'.repeat(256)}`,
    ],
  ])('is not read with the query %j: 400', async (query) => {
    const { port } = await startService()
    expect(await read(port, `/orders${query}`)).toMatchObject({
      status: 400,
      json: { code: 'bad-request', detail: expect.stringContaining('idempotency_key=<key>') },
    })
  })

  test('is not read without a signature of the path and the query as they were sent', async () => {
    const { port } = await startShops()
    const key = newKey()
    const { headers } = await send(port, { secret: SECRET, key })
    const path = `${headers.location}`
    const wrong: Send[] = [
      { signature: null },
      { secret: 'another secret' },
      { signature: 'a'.repeat(64) },
    ]
    for (const signer of wrong) expect((await read(port, path, signer)).status).toBe(401)
    expect(
      (await send(port, { method: 'GET', path, signingKey: createKey('stranger') })).status,
    ).toBe(401)
  })

  test('counts for the limit when it is read', async () => {
    const { port } = await startService({ env: { RATE_LIMIT_MAX: '2' } })
    const { headers } = await send(port)
    const found = await read(port, `${headers.location}`)
    expect(found).toMatchObject({ status: 200, headers: { 'x-ratelimit-remaining': '0' } })
    expect((await read(port, `${headers.location}`)).status).toBe(429)
  })

  test('is found by its id when its key was released, and no longer by the key', async () => {
    const { port, database } = await startService()
    const key = newKey()
    const created = await send(port, { key })
    await database.sql`update orders set released_key = idempotency_key, idempotency_key = null`
    const found = await read(port, `${created.headers.location}`)
    expect(found).toMatchObject({ status: 200, text: created.text })
    expect((await readByKey(port, key)).json.code).toBe('order-not-found')
  })

  test('is read with HEAD as with GET, without the body', async () => {
    const { port } = await startService()
    const created = await send(port)
    const { status, headers, text } = await read(port, `${created.headers.location}`, {
      method: 'HEAD',
    })
    expect({ status, text }).toEqual({ status: 200, text: '' })
    expect(headers['content-length']).toBe(`${Buffer.byteLength(created.text)}`)
  })
})

describe('a key that is sent with another body', () => {
  const other = { ...ORDER, item: 'tea', amount: 501 }

  test.each(['memory', 'postgres', ...(hasRedis ? ['redis'] : [])])(
    'is refused with the names of the members that differ, never their values, with records in %s',
    async (store) => {
      const redis = store === 'redis'
      const service = await startService({ redis, env: { IDEMPOTENCY_STORE: store } })
      const { port } = service
      const key = newKey()
      await send(port, { key })
      const refusals = [
        await send(port, { key, body: other }),
        await send(port, { key, body: { ...ORDER, user_id: 'user-2' } }),
      ]
      if (redis) await service.redisSpace?.flush()
      refusals.push(await send(port, { key, body: other }))
      expect(refusals.map(({ status }) => status)).toEqual([409, 409, 409])
      expect(refusals.map(({ json }) => json.changed)).toEqual([
        ['item', 'amount'],
        ['user_id'],
        ['item', 'amount'],
      ])
      for (const { text } of refusals) expect(text).not.toMatch(/book|500|tea|501|user-[12]/)
    },
  )

  test('is refused without these names when Postgres does not have the order', async () => {
    const { port, database } = await startService({ env: { IDEMPOTENCY_STORE: 'memory' } })
    const key = newKey()
    await send(port, { key })
    await database.sql`delete from orders`
    const { status, json } = await send(port, { key, body: other })
    expect(status).toBe(409)
    expect(json).toMatchObject({ code: 'idempotency-key-reused', retryable: false })
    expect(json).not.toHaveProperty('changed')
  })
})
