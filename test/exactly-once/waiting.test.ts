import { Redis } from 'ioredis'
import { describe, expect, onTestFinished, test } from 'vitest'
import { fingerprintRequest } from '../../packages/idempotency/src/fingerprint.ts'
import { newKey, ORDER, open, send, sendAll } from '../support/client.ts'
import { createGate, delayInserts, type Gate } from '../support/gate.ts'
import { redisServer, startPrivateRedis } from '../support/private-redis.ts'
import { createTestStores, startInstance, type Variation } from '../support/service.ts'
import { hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

/** Only the first insert waits at the gate: a duplicate may take over. */
const delayFirst = (gate: Gate): Variation => ({ wrapOrders: delayInserts(gate, 1) })

/** Sends the first request; its insert waits at the gate. */
async function sendFirst(port: number, gate: Gate) {
  const key = newKey()
  const original = send(port, { key })
  await until(() => gate.arrived === 1)
  // In an object, because a promise that is returned is awaited.
  return { key, original }
}

const wait = (seconds: number) => ({ headers: { prefer: `wait=${seconds}` } })

const places = [
  { name: 'one instance with records in memory', kind: 'memory', instances: 1 },
  { name: 'two instances with records in Postgres', kind: 'postgres', instances: 2 },
  ...(hasRedis
    ? [
        { name: 'one instance on Redis', kind: 'redis', instances: 1 },
        { name: 'two instances on Redis', kind: 'redis', instances: 2 },
      ]
    : []),
]

describe.each(places)('a duplicate that waits, on $name', ({ kind, instances }) => {
  async function start(variation: Variation) {
    const stores = await createTestStores({ redis: kind === 'redis' })
    const started = []
    for (let i = 0; i < instances; i++) {
      started.push(
        await startInstance(stores, {
          ...variation,
          env: { IDEMPOTENCY_STORE: kind, ...variation.env },
        }),
      )
    }
    const [first, last] = [started[0], started.at(-1)]
    if (!first || !last) throw new Error('no instance')
    return { first, last, stores }
  }

  test('gets the response of the first request as a replay, with Preference-Applied', async () => {
    const gate = createGate()
    const { first, last } = await start(delayFirst(gate))
    const { key, original } = await sendFirst(first.port, gate)
    const duplicate = send(last.port, { key, ...wait(30) })
    await until(async () => (await last.waiting()) === 1)
    gate.open()

    const [response, replay] = [await original, await duplicate]
    expect(replay).toMatchObject({ status: 201, text: response.text })
    expect(replay.headers['idempotency-replayed']).toBe('true')
    expect(replay.headers['preference-applied']).toBe('wait=30')
    expect(response.headers['preference-applied']).toBeUndefined()
    expect(await last.waiting()).toBe(0)
    await until(() => last.logLines.some(({ idempotency }) => idempotency === 'waited'))
  })

  test('takes over when the first request fails; the others get its response', async () => {
    const gate = createGate()
    let failures = 1
    const { first, last, stores } = await start({
      env: { IN_FLIGHT_WAIT_SECONDS: '30' },
      wrapOrders: (orders) => ({
        ...orders,
        insertOnce: async (order) => {
          if (gate.arrived === 0) await gate.pass()
          if (failures-- > 0) throw new Error('the first insert fails')
          return orders.insertOnce(order)
        },
      }),
    })
    const { key, original } = await sendFirst(first.port, gate)
    const duplicates = sendAll(10, () => send(last.port, { key }))
    await until(async () => (await last.waiting()) === 10)
    gate.open()

    expect((await original).status).toBe(500)
    const replies = await duplicates
    expect(replies.map(({ status }) => status)).toEqual(Array(10).fill(201))
    expect(new Set(replies.map(({ text }) => text)).size).toBe(1)
    const fresh = replies.filter(({ headers }) => headers['idempotency-replayed'] === undefined)
    expect(fresh).toHaveLength(1)
    expect(await stores.database.sql`select id from orders`).toHaveLength(1)
  })

  test('is refused with 409 and Retry-After after the time that it prefers', async () => {
    const gate = createGate()
    const { first, last } = await start(delayFirst(gate))
    const { key, original } = await sendFirst(first.port, gate)
    const reply = await send(last.port, { key, ...wait(1) })
    expect(reply).toMatchObject({ status: 409, json: { code: 'request-in-progress' } })
    expect(reply.headers).toMatchObject({ 'retry-after': '1', 'preference-applied': 'wait=1' })
    gate.open()
    expect((await original).status).toBe(201)
  })

  test('with another body is refused at once', async () => {
    const gate = createGate()
    const { first, last } = await start(delayFirst(gate))
    const { key, original } = await sendFirst(first.port, gate)
    const reply = await send(last.port, { key, body: { ...ORDER, amount: 1 }, ...wait(30) })
    expect(reply.json.code).toBe('idempotency-key-reused')
    gate.open()
    await original
  })

  test('is no longer counted when its client disconnects', async () => {
    const gate = createGate()
    const { first, last } = await start(delayFirst(gate))
    const { key, original } = await sendFirst(first.port, gate)
    const duplicate = open(last.port, { key, ...wait(30) })
    duplicate.on('error', () => {})
    await until(async () => (await last.waiting()) === 1)
    duplicate.destroy()
    await until(async () => (await last.waiting()) === 0)
    gate.open()
    await original
  })

  test('is refused with 409 at shutdown, and does not delay it', async () => {
    const gate = createGate()
    const { first, last } = await start(delayFirst(gate))
    const { key, original } = await sendFirst(first.port, gate)
    const duplicate = send(last.port, { key, ...wait(30) })
    await until(async () => (await last.waiting()) === 1)
    const closing = last.app.close()
    expect((await duplicate).json.code).toBe('request-in-progress')
    gate.open()
    expect((await original).status).toBe(201)
    await closing
  })

  test('waits 30 seconds at most, and not at all for wait=0', async () => {
    const { first } = await start({ env: { IN_FLIGHT_WAIT_SECONDS: '30' } })
    const long = await send(first.port, wait(3600))
    expect(long.headers['preference-applied']).toBe('wait=30')

    const gate = createGate()
    const other = await start({ ...delayFirst(gate), env: { IN_FLIGHT_WAIT_SECONDS: '30' } })
    const { key, original } = await sendFirst(other.first.port, gate)
    expect((await send(other.last.port, { key, ...wait(0) })).status).toBe(409)
    gate.open()
    await original
  })
})

describe.runIf(hasRedis)('duplicates that wait, on Redis', () => {
  test('get one order, if there are 100 on two instances, and leave no subscription', async () => {
    const gate = createGate()
    const stores = await createTestStores()
    const env = { IN_FLIGHT_WAIT_SECONDS: '30' }
    const one = await startInstance(stores, { ...delayFirst(gate), env })
    const other = await startInstance(stores, { env })
    const { key, original } = await sendFirst(one.port, gate)
    const duplicates = sendAll(100, (i) => send(i % 2 ? one.port : other.port, { key }))
    await until(async () => (await one.waiting()) + (await other.waiting()) === 100)
    const subscribers = async () =>
      (await stores.redisSpace?.redis.pubsub('NUMSUB', `idemp:${key}`))?.[1]
    expect(await subscribers()).toBe(2)
    gate.open()

    const { text } = await original
    for (const reply of await duplicates) expect(reply).toMatchObject({ status: 201, text })
    expect(await stores.database.sql`select id from orders`).toHaveLength(1)
    expect((await one.waiting()) + (await other.waiting())).toBe(0)
    await until(async () => (await subscribers()) === 0)
  })

  test('take over from a process that was killed when its lease ends', async () => {
    const stores = await createTestStores()
    const { port, databaseId } = await startInstance(stores)
    const key = newKey()
    const payload_hash = fingerprintRequest({ method: 'POST', path: '/orders', body: ORDER })
    const claim = {
      state: 'in_flight',
      database: databaseId,
      token: 'of the killed process',
      payload_hash,
      created_at: '',
    }
    // The process reads when the lease ends as soon as a duplicate waits: it cannot be shortened then.
    await stores.redisSpace?.redis.set(`idemp:${key}`, JSON.stringify(claim), 'PX', 700)
    const replies = await sendAll(10, () => send(port, { key, ...wait(30) }))
    expect(replies.map(({ status }) => status)).toEqual(Array(10).fill(201))
    expect(new Set(replies.map(({ text }) => text)).size).toBe(1)
    expect(await stores.database.sql`select id from orders`).toHaveLength(1)
  })

  test('poll the store while pub/sub does not work', async () => {
    const gate = createGate()
    const stores = await createTestStores()
    const one = await startInstance(stores, {
      ...delayFirst(gate),
      wrapIdempotencyStore: (store) => ({
        ...store,
        watch: () => Promise.reject(new Error('no pub/sub')),
      }),
    })
    const { key, original } = await sendFirst(one.port, gate)
    const duplicate = send(one.port, { key, ...wait(30) })
    await until(async () => (await one.waiting()) === 1)
    gate.open()
    expect((await duplicate).text).toBe((await original).text)
  })
})

describe.runIf(redisServer)('duplicates that wait, on a Redis of their own', () => {
  test('get a response that was published while their subscription was lost', async () => {
    const privateRedis = await startPrivateRedis()
    const redis = new Redis(privateRedis.url)
    onTestFinished(async () => {
      redis.disconnect()
      await privateRedis.stop()
    })
    const gate = createGate()
    const { database } = await createTestStores({ redis: false })
    const stores = { database, redisSpace: { url: privateRedis.url } }
    const one = await startInstance(stores, delayFirst(gate))
    const { key, original } = await sendFirst(one.port, gate)
    const duplicate = send(one.port, { key, ...wait(30) })
    await until(async () => (await one.waiting()) === 1)
    await until(async () => (await redis.pubsub('NUMSUB', `idemp:${key}`))[1] === 1)
    // The response is published before the subscriber is connected again.
    const killed = redis.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
    gate.open()
    expect(await killed).toBe(1)
    expect((await duplicate).text).toBe((await original).text)
  })
})
