import { Redis } from 'ioredis'
import { describe, expect, onTestFinished, test } from 'vitest'
import { newKey, ORDER, open, send, sendAll } from '../support/client.ts'
import { createGate, type Gate } from '../support/gate.ts'
import { redisServer, startPrivateRedis } from '../support/private-redis.ts'
import { createTestStores, startInstance, type Variation } from '../support/service.ts'
import { hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

/** Lets the first inserts pass only through the gate; what comes to it later goes straight on. */
const held = (gate: Gate, count = 1): Variation => ({
  wrapOrders: (orders) => ({
    ...orders,
    insertOnce: async (order) => {
      if (gate.arrived < count) await gate.pass()
      return orders.insertOnce(order)
    },
  }),
})

/** Sends the request that duplicates will wait for, as far as the gate. */
async function sendAhead(port: number, gate: Gate) {
  const key = newKey()
  const ahead = send(port, { key })
  await until(() => gate.arrived === 1)
  // In an object: awaited, it would not come back before the gate is opened.
  return { key, ahead }
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

  test('gets the answer of the first as a replay, and is told that it waited', async () => {
    const gate = createGate()
    const { first, last } = await start(held(gate))
    const { key, ahead } = await sendAhead(first.port, gate)
    const behind = send(last.port, { key, ...wait(30) })
    await until(async () => (await last.waiting()) === 1)
    gate.open()

    const [answer, replay] = [await ahead, await behind]
    expect(replay).toMatchObject({ status: 201, text: answer.text })
    expect(replay.headers['idempotency-replayed']).toBe('true')
    expect(replay.headers['preference-applied']).toBe('wait=30')
    expect(answer.headers['preference-applied']).toBeUndefined()
    expect(await last.waiting()).toBe(0)
    await until(() => last.logLines.some(({ idempotency }) => idempotency === 'waited'))
  })

  test('takes over when the first fails, and the rest follow it', async () => {
    const gate = createGate()
    let failures = 1
    const { first, last, stores } = await start({
      env: { IN_FLIGHT_WAIT_SECONDS: '30' },
      wrapOrders: (orders) => ({
        ...orders,
        insertOnce: async (order) => {
          if (gate.arrived === 0) await gate.pass()
          if (failures-- > 0) throw new Error('the first fails')
          return orders.insertOnce(order)
        },
      }),
    })
    const { key, ahead } = await sendAhead(first.port, gate)
    const behind = sendAll(10, () => send(last.port, { key }))
    await until(async () => (await last.waiting()) === 10)
    gate.open()

    expect((await ahead).status).toBe(500)
    const replies = await behind
    expect(replies.map(({ status }) => status)).toEqual(Array(10).fill(201))
    expect(new Set(replies.map(({ text }) => text)).size).toBe(1)
    const fresh = replies.filter(({ headers }) => headers['idempotency-replayed'] === undefined)
    expect(fresh).toHaveLength(1)
    expect(await stores.database.sql`select id from orders`).toHaveLength(1)
  })

  test('is refused with 409 and Retry-After when its time is up, and told how long it waited', async () => {
    const gate = createGate()
    const { first, last } = await start(held(gate))
    const { key, ahead } = await sendAhead(first.port, gate)
    const reply = await send(last.port, { key, ...wait(1) })
    expect(reply).toMatchObject({ status: 409, json: { code: 'request-in-progress' } })
    expect(reply.headers).toMatchObject({ 'retry-after': '1', 'preference-applied': 'wait=1' })
    gate.open()
    expect((await ahead).status).toBe(201)
  })

  test('with another body is refused at once', async () => {
    const gate = createGate()
    const { first, last } = await start(held(gate))
    const { key, ahead } = await sendAhead(first.port, gate)
    const reply = await send(last.port, { key, body: { ...ORDER, amount: 1 }, ...wait(30) })
    expect(reply.json.code).toBe('idempotency-key-reused')
    gate.open()
    await ahead
  })

  test('gives up its place when its client goes away', async () => {
    const gate = createGate()
    const { first, last } = await start(held(gate))
    const { key, ahead } = await sendAhead(first.port, gate)
    const behind = open(last.port, { key, ...wait(30) })
    behind.on('error', () => {})
    await until(async () => (await last.waiting()) === 1)
    behind.destroy()
    await until(async () => (await last.waiting()) === 0)
    gate.open()
    await ahead
  })

  test('ends at shutdown: it is refused with 409, and does not hold up the end', async () => {
    const gate = createGate()
    const { first, last } = await start(held(gate))
    const { key, ahead } = await sendAhead(first.port, gate)
    const behind = send(last.port, { key, ...wait(30) })
    await until(async () => (await last.waiting()) === 1)
    const closing = last.app.close()
    expect((await behind).json.code).toBe('request-in-progress')
    gate.open()
    expect((await ahead).status).toBe(201)
    await closing
  })

  test('waits 30 seconds at most, and not at all for wait=0', async () => {
    const { first } = await start({ env: { IN_FLIGHT_WAIT_SECONDS: '30' } })
    const long = await send(first.port, wait(3600))
    expect(long.headers['preference-applied']).toBe('wait=30')

    const gate = createGate()
    const other = await start({ ...held(gate), env: { IN_FLIGHT_WAIT_SECONDS: '30' } })
    const { key, ahead } = await sendAhead(other.first.port, gate)
    expect((await send(other.last.port, { key, ...wait(0) })).status).toBe(409)
    gate.open()
    await ahead
  })
})

describe.runIf(hasRedis)('duplicates that wait, on Redis', () => {
  test('500 on one key, on two instances: one row, 500 equal answers, and nothing left behind', async () => {
    const gate = createGate()
    const stores = await createTestStores()
    const env = { IN_FLIGHT_WAIT_SECONDS: '30' }
    const one = await startInstance(stores, { ...held(gate), env })
    const other = await startInstance(stores, { env })
    const { key, ahead } = await sendAhead(one.port, gate)
    const behind = sendAll(500, (i) => send(i % 2 ? one.port : other.port, { key }))
    await until(async () => (await one.waiting()) + (await other.waiting()) === 500)
    const prefix = stores.redisSpace?.redis.options.keyPrefix
    const subscribers = async () =>
      (await stores.redisSpace?.redis.pubsub('NUMSUB', `${prefix}idemp:${key}`))?.[1]
    expect(await subscribers()).toBe(2)
    gate.open()

    const answer = await ahead
    for (const reply of await behind)
      expect(reply).toMatchObject({ status: 201, text: answer.text })
    expect(await stores.database.sql`select id from orders`).toHaveLength(1)
    expect((await one.waiting()) + (await other.waiting())).toBe(0)
    await until(async () => (await subscribers()) === 0)
  })

  test('are bounded in number: one more is refused with 409', async () => {
    const gate = createGate()
    const stores = await createTestStores()
    const one = await startInstance(stores, held(gate))
    const { key, ahead } = await sendAhead(one.port, gate)
    const behind = sendAll(1_000, () => send(one.port, { key, ...wait(30) }))
    await until(async () => (await one.waiting()) === 1_000)
    expect(await send(one.port, { key, ...wait(30) })).toMatchObject({
      status: 409,
      json: { code: 'request-in-progress' },
    })
    gate.open()
    await ahead
    expect((await behind).every(({ status }) => status === 201)).toBe(true)
  })

  test('take over from a dead process when its lease ends', async () => {
    const stores = await createTestStores()
    const dying = await startInstance(stores)
    const key = newKey()
    const { text } = await send(dying.port, { key })
    const { payload_hash } = await until(async () => {
      const record = await stores.redisSpace?.redis.get(`idemp:${key}`)
      return record?.includes('completed') && JSON.parse(record)
    })
    await stores.database.sql`truncate orders`
    const mark = { state: 'in_flight', token: 'dead', payload_hash, created_at: '' }
    await stores.redisSpace?.redis.set(`idemp:${key}`, JSON.stringify(mark), 'PX', 700)

    const replies = await sendAll(10, () => send(dying.port, { key, ...wait(30) }))
    expect(replies.every(({ status }) => status === 201)).toBe(true)
    expect(new Set(replies.map((reply) => reply.text)).size).toBe(1)
    expect(replies[0]?.text).not.toBe(text)
  })

  test('wait by a slow poll while pub/sub does not work', async () => {
    const gate = createGate()
    const stores = await createTestStores()
    const one = await startInstance(stores, {
      ...held(gate),
      wrapIdempotencyStore: (store) => ({
        ...store,
        watch: () => Promise.reject(new Error('no pub/sub')),
      }),
    })
    const { key, ahead } = await sendAhead(one.port, gate)
    const behind = send(one.port, { key, ...wait(30) })
    await until(async () => (await one.waiting()) === 1)
    gate.open()
    expect((await behind).text).toBe((await ahead).text)
  })
})

describe.runIf(redisServer)('duplicates that wait, on a Redis of their own', () => {
  test('are told of what they missed while their subscription was lost', async () => {
    const privateRedis = await startPrivateRedis()
    const redis = new Redis(privateRedis.url)
    onTestFinished(async () => {
      redis.disconnect()
      await privateRedis.stop()
    })
    const gate = createGate()
    const { database } = await createTestStores({ redis: false })
    const redisSpace = { url: privateRedis.url }
    const one = await startInstance({ database, redisSpace }, held(gate))
    const { key, ahead } = await sendAhead(one.port, gate)
    const behind = send(one.port, { key, ...wait(30) })
    await until(async () => (await one.waiting()) === 1)
    await until(async () => (await redis.pubsub('NUMSUB', `idemp:${key}`))[1] === 1)
    // The answer is published before the subscriber can be back.
    const killed = redis.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
    gate.open()
    expect(await killed).toBe(1)
    expect((await behind).text).toBe((await ahead).text)
  })
})
