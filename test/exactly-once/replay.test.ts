import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { fingerprintRequest } from '../../packages/idempotency/src/fingerprint.ts'
import { newKey, ORDER, open, send } from '../support/client.ts'
import { createGate, delayInserts } from '../support/gate.ts'
import { createTestStores, startInstance, startService } from '../support/service.ts'
import { hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

const FINGERPRINT = fingerprintRequest({ method: 'POST', path: '/orders', body: ORDER })

describe.each(hasRedis ? ['memory', 'redis'] : ['memory'])(
  'a repeat, with records in %s',
  (kind) => {
    const redis = kind === 'redis'

    test('the first response is 201 with the order, without Idempotency-Replayed', async () => {
      const { port, database } = await startService({ redis })
      const key = newKey()
      const reply = await send(port, { key })
      expect(reply.status).toBe(201)
      expect(reply.headers['content-type']).toBe('application/json; charset=utf-8')
      expect(reply.headers['idempotency-replayed']).toBeUndefined()
      const [row] = await database.sql`select * from orders`
      expect(reply.json).toEqual({
        order: {
          id: row?.id,
          ...ORDER,
          idempotency_key: key,
          created_at: row?.created_at.toISOString(),
        },
      })
      expect(row?.id).toMatch(
        /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
      )
      expect(Object.keys(reply.json.order)).toEqual([
        'id',
        'user_id',
        'item',
        'amount',
        'idempotency_key',
        'created_at',
      ])
    })

    test('gets the same status, Content-Type and bytes, and Idempotency-Replayed: true', async () => {
      const { port, countOrders } = await startService({ redis })
      const key = newKey()
      const first = await send(port, { key })
      for (let i = 0; i < 3; i++) {
        const repeat = await send(port, { key })
        expect(repeat).toMatchObject({ status: first.status, text: first.text })
        expect(repeat.headers['content-type']).toBe(first.headers['content-type'])
        expect(repeat.headers['idempotency-replayed']).toBe('true')
        expect(repeat.headers['x-request-id']).not.toBe(first.headers['x-request-id'])
        expect(repeat.headers['x-ratelimit-remaining']).not.toBe(
          first.headers['x-ratelimit-remaining'],
        )
      }
      expect(await countOrders()).toBe(1)
    })

    test('may have its members in another order, and other white space', async () => {
      const { port } = await startService({ redis })
      const key = newKey()
      const first = await send(port, { key })
      const repeat = await send(port, {
        key,
        body: ' {"amount":5e2, "item":"book","user_id":"user-1"}',
      })
      expect(repeat.text).toBe(first.text)
      expect(repeat.headers['idempotency-replayed']).toBe('true')
    })

    test('with another body is refused with 409, and the first body is still replayed', async () => {
      const { port, countOrders } = await startService({ redis })
      const key = newKey()
      const first = await send(port, { key })
      for (const changed of [{ user_id: 'user-2' }, { item: 'pen' }, { amount: 500.01 }]) {
        const reply = await send(port, { key, body: { ...ORDER, ...changed } })
        expect(reply).toMatchObject({ status: 409, json: { code: 'idempotency-key-reused' } })
        expect(reply.headers['idempotency-replayed']).toBeUndefined()
      }
      expect(await send(port, { key })).toMatchObject({ status: 201, text: first.text })
      expect(await countOrders()).toBe(1)
    })

    test('with another body is refused with 422 if IDEMPOTENCY_MISMATCH_STATUS is 422', async () => {
      const { port } = await startService({ redis, env: { IDEMPOTENCY_MISMATCH_STATUS: '422' } })
      const key = newKey()
      await send(port, { key })
      expect(await send(port, { key, body: { ...ORDER, amount: 1 } })).toMatchObject({
        status: 422,
        json: { status: 422, code: 'idempotency-key-reused' },
      })
    })

    test('of the body with a new key is a new order', async () => {
      const { port, countOrders } = await startService({ redis })
      expect((await send(port)).json.order.id).not.toBe((await send(port)).json.order.id)
      expect(await countOrders()).toBe(2)
    })

    test('after a failure of the database creates the order', async () => {
      let failures = 1
      const { port, countOrders } = await startService({
        redis,
        wrapOrders: (orders) => ({
          ...orders,
          insertOnce: (order) =>
            failures-- > 0 ? Promise.reject(new Error('down')) : orders.insertOnce(order),
        }),
      })
      const key = newKey()
      expect(await send(port, { key })).toMatchObject({
        status: 500,
        json: { code: 'internal-error' },
      })
      const repeat = await send(port, { key })
      expect(repeat.status).toBe(201)
      expect(repeat.headers['idempotency-replayed']).toBeUndefined()
      expect(await countOrders()).toBe(1)
    })

    test('after a commit whose response was lost gets the order that was committed', async () => {
      let losses = 1
      const { port, database } = await startService({
        redis,
        wrapOrders: (orders) => ({
          ...orders,
          insertOnce: async (order) => {
            const result = await orders.insertOnce(order)
            if (losses-- > 0) throw new Error('connection lost after the commit')
            return result
          },
        }),
      })
      const key = newKey()
      expect((await send(port, { key })).status).toBe(500)
      const repeat = await send(port, { key })
      expect(repeat.status).toBe(201)
      expect(repeat.headers['idempotency-replayed']).toBe('true')
      const rows = await database.sql`select id from orders`
      expect(rows).toEqual([{ id: repeat.json.order.id }])
    })

    test('by a client that disconnected before its response gets that response', async () => {
      const gate = createGate()
      const { port, app, countOrders } = await startService({
        redis,
        wrapOrders: delayInserts(gate),
      })
      const key = newKey()
      const outgoing = open(port, { key })
      outgoing.on('error', () => {})
      await until(() => gate.arrived === 1)
      outgoing.destroy()
      const connections = promisify(app.server.getConnections.bind(app.server))
      await until(async () => (await connections()) === 0)
      gate.open()
      await until(async () => (await countOrders()) === 1)
      const repeat = await send(port, { key })
      expect(repeat.status).toBe(201)
      expect(repeat.headers['idempotency-replayed']).toBe('true')
      expect(gate.arrived).toBe(1)
    })
  },
)

describe.runIf(hasRedis)('a response that Redis has lost', () => {
  test('is rebuilt from Postgres byte for byte, and stored again', async () => {
    const { port, redisSpace, countOrders } = await startService({ redis: true })
    const key = newKey()
    const body = { user_id: 'üser \u2028', item: 'b\u0001k "🦊"', amount: 0.1 }
    const first = await send(port, { key, body })
    await until(async () => /completed/.test((await redisSpace?.redis.get(`idemp:${key}`)) ?? ''))
    await redisSpace?.flush()

    const repeat = await send(port, { key, body })
    expect(repeat).toMatchObject({ status: 201, text: first.text })
    expect(repeat.headers['content-type']).toBe(first.headers['content-type'])
    expect(repeat.headers['idempotency-replayed']).toBe('true')
    expect(await countOrders()).toBe(1)
    await until(async () => /completed/.test((await redisSpace?.redis.get(`idemp:${key}`)) ?? ''))
  })

  test('still protects its key from another body', async () => {
    const { port, redisSpace, countOrders } = await startService({ redis: true })
    const key = newKey()
    const first = await send(port, { key })
    await redisSpace?.flush()
    expect(await send(port, { key, body: { ...ORDER, amount: 1 } })).toMatchObject({
      status: 409,
      json: { code: 'idempotency-key-reused' },
    })
    expect(await send(port, { key })).toMatchObject({ status: 201, text: first.text })
    expect(await countOrders()).toBe(1)
  })

  test('is rebuilt through another instance', async () => {
    const stores = await createTestStores()
    const [one, other] = [await startInstance(stores), await startInstance(stores)]
    const key = newKey()
    const first = await send(one.port, { key })
    expect((await send(other.port, { key })).text).toBe(first.text)
    await stores.redisSpace?.flush()
    expect((await send(other.port, { key })).text).toBe(first.text)
  })
})

describe.runIf(hasRedis)('the claim of a process that was killed', () => {
  const claim = { state: 'in_flight', token: 'of the killed process', created_at: '' }

  test('does not hide an order that it has created', async () => {
    const { port, redisSpace, databaseId: database } = await startService({ redis: true })
    const key = newKey()
    const first = await send(port, { key })
    const { payload_hash } = await until(async () => {
      const text = (await redisSpace?.redis.get(`idemp:${key}`)) ?? ''
      return text.includes('completed') && JSON.parse(text)
    })
    const leaveClaim = (payload_hash: string) =>
      redisSpace?.redis.set(`idemp:${key}`, JSON.stringify({ ...claim, database, payload_hash }))

    await leaveClaim(payload_hash)
    expect(await send(port, { key })).toMatchObject({ status: 201, text: first.text })
    // The claim of another body, whose process was killed before it refused that body.
    await leaveClaim('v1:another')
    expect(await send(port, { key })).toMatchObject({ status: 201, text: first.text })
    expect((await send(port, { key, body: { ...ORDER, amount: 1 } })).json.code).toBe(
      'idempotency-key-reused',
    )
  })

  test('is 409 without an order, until its lease ends', async () => {
    const { port, redisSpace, databaseId: database } = await startService({ redis: true })
    const key = newKey()
    const record = JSON.stringify({ ...claim, database, payload_hash: FINGERPRINT })
    await redisSpace?.redis.set(`idemp:${key}`, record, 'EX', 60)
    const reply = await send(port, { key })
    expect(reply).toMatchObject({ status: 409, json: { code: 'request-in-progress' } })
    expect(reply.headers['retry-after']).toMatch(/^[1-9]\d*$/)
    await redisSpace?.redis.pexpire(`idemp:${key}`, 1)
    await until(async () => (await send(port, { key })).status === 201)
  })
})

const stores = [
  { kind: 'redis', name: 'Redis' },
  { kind: 'postgres', name: 'Postgres' },
].filter(({ kind }) => hasRedis || kind !== 'redis')

describe.each(stores)('a claim in $name that a dead process left', ({ kind }) => {
  test('is refused with the rest of its lease as Retry-After, and a client that obeys gets its 201', async () => {
    const gate = createGate()
    const stores = await createTestStores({ redis: kind === 'redis' })
    const env = { IDEMPOTENCY_STORE: kind, IDEMPOTENCY_LEASE_SECONDS: '4' }
    const { port } = await startInstance(stores, { env })
    const dead = await startInstance(stores, {
      env,
      wrapOrders: delayInserts(gate),
      // A process that is dead neither renews nor completes nor releases.
      wrapIdempotencyStore: (store) => ({
        ...store,
        renew: async () => true,
        complete: async () => {},
        release: async () => {},
      }),
    })
    const key = newKey()
    open(dead.port, { key }).on('error', () => {})
    await until(() => gate.arrived === 1)

    expect((await send(port, { key })).headers['retry-after']).toBe('1')
    // A claim that is renewed on time has at least 2.1 of its 4 seconds.
    const refused = await until(async () => {
      const reply = await send(port, { key })
      return reply.headers['retry-after'] !== '1' && reply
    })
    expect(refused).toMatchObject({ status: 409, json: { code: 'request-in-progress' } })
    expect(refused.headers['retry-after']).toMatch(/^[23]$/)
    await sleep(Number(refused.headers['retry-after']) * 1000)
    const reply = await send(port, { key })
    expect(reply.status).toBe(201)
    expect(reply.headers['idempotency-replayed']).toBeUndefined()
    expect(await stores.database.sql`select id from orders`).toHaveLength(1)
    gate.open()
  })
})

describe.runIf(hasRedis)('a response in Redis that must not be sent', () => {
  test.each([
    ['has the header Transfer-Encoding', { headers: { 'transfer-encoding': 'chunked' } }],
    ['has the header Set-Cookie', { headers: { 'set-cookie': 'session=1' } }],
    ['has the status 999999', { status_code: 999_999 }],
    ['has a line break in a header', { headers: { location: '/\r\nset-cookie: session=1' } }],
  ])('is not sent if it %s: the request gets the response of its order', async (_name, changes) => {
    const { port, app, redisSpace, countOrders, logLines } = await startService({ redis: true })
    const key = newKey()
    const first = await send(port, { key })
    const readRecord = async () => (await redisSpace?.redis.get(`idemp:${key}`)) ?? ''
    const record = await until(async () => {
      const text = await readRecord()
      return text.includes('completed') && text
    })
    await redisSpace?.redis.set(
      `idemp:${key}`,
      JSON.stringify({ ...JSON.parse(record), ...changes }),
    )

    const repeat = await send(port, { key })
    expect(repeat).toMatchObject({ status: 201, text: first.text })
    expect(repeat.headers['content-type']).toBe(first.headers['content-type'])
    expect(repeat.headers['set-cookie']).toBeUndefined()
    expect(await countOrders()).toBe(1)
    expect(await app.metrics.read()).toContain('order_once_corrupt_records_total 1')
    const lines = logLines.filter(({ msg }) => /could not be read/.test(String(msg)))
    expect(lines).toMatchObject([{ level: 40 }])
    await until(async () => JSON.parse((await readRecord()) || '{}').status_code === 201)
  })
})

describe.runIf(hasRedis)('a corrupt record', () => {
  test('is ignored: Postgres decides', async () => {
    const { port, redisSpace, countOrders } = await startService({ redis: true })
    const key = newKey()
    await redisSpace?.redis.set(`idemp:${key}`, '{"state":"comp')
    const first = await send(port, { key })
    expect(first.status).toBe(201)
    expect(await send(port, { key })).toMatchObject({ status: 201, text: first.text })
    expect(await countOrders()).toBe(1)
  })
})
