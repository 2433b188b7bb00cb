import { describe, expect, onTestFinished, test } from 'vitest'
import { blockInserts } from '../support/blocked-inserts.ts'
import { newKey, ORDER, open, send, sendAll } from '../support/client.ts'
import { createGate, delayInserts } from '../support/gate.ts'
import { redisServer, startPrivateRedis } from '../support/private-redis.ts'
import { hasPromtool, promtool } from '../support/promtool.ts'
import { scrape } from '../support/scrape.ts'
import { createTestStores, startInstance, startService } from '../support/service.ts'
import { startProxy } from '../support/start-proxy.ts'
import { until } from '../support/until.ts'

const OUTCOMES = 'order_once_idempotency_outcomes_total'
const DURATIONS = 'http_request_duration_seconds'

const outcomesOf = async (port: number) => {
  const { value } = await scrape(port)
  const names = ['new', 'replayed_cache', 'replayed_database', 'mismatch', 'in_progress', 'waited']
  return Object.fromEntries(names.map((outcome) => [outcome, value(OUTCOMES, { outcome })]))
}
const NO_OUTCOMES = {
  new: 0,
  replayed_cache: 0,
  replayed_database: 0,
  mismatch: 0,
  in_progress: 0,
  waited: 0,
}

describe('GET /metrics', () => {
  test('has every series from the start, each with its help and type', async () => {
    const { port } = await startService()
    const { text } = await scrape(port)
    for (const [name, type] of [
      [OUTCOMES, 'counter'],
      ['order_once_rate_limited_total', 'counter'],
      ['order_once_signature_failures_total', 'counter'],
      ['order_once_claims_released_total', 'counter'],
      ['order_once_waiting_duplicates', 'gauge'],
      ['order_once_row_mismatches_total', 'counter'],
      ['order_once_redis_degraded', 'gauge'],
      ['order_once_redis_errors_total', 'counter'],
      ['order_once_insert_batch_size', 'histogram'],
      ['order_once_insert_queue_depth', 'gauge'],
      ['order_once_insert_queue_limit', 'gauge'],
      ['order_once_postgres_up', 'gauge'],
      ['order_once_postgres_queries_pending', 'gauge'],
      ['order_once_postgres_queries_limit', 'gauge'],
    ]) {
      expect(text).toContain(`# TYPE ${name} ${type}\n${name}`)
      expect(text).toContain(`# HELP ${name} `)
    }
    expect(await outcomesOf(port)).toEqual(NO_OUTCOMES)
  })

  test.runIf(hasPromtool)('is what `promtool check metrics` finds nothing wrong with', async () => {
    const { port } = await startService()
    await send(port)
    await send(port, { path: '/nowhere' })
    await scrape(port)
    expect(promtool(['check', 'metrics'], (await scrape(port)).text)).toEqual({
      status: 0,
      output: '',
    })
  })

  test('needs no signature, counts for no limit and is not logged', async () => {
    const { port, logLines } = await startService({ env: { RATE_LIMIT_MAX: '1' } })
    for (let i = 0; i < 3; i++) await scrape(port)
    expect((await send(port)).status).toBe(201)
    await until(() => logLines.some(({ route }) => route === '/orders'))
    expect(logLines.filter(({ msg }) => msg === 'request')).toHaveLength(1)
  })
})

describe('the duration of requests', () => {
  test('is counted by route and status, in buckets that add up', async () => {
    const { port } = await startService()
    await sendAll(5, () => send(port))
    await send(port, { signature: null })
    const { value } = await scrape(port)
    const made = { route: '/orders', status: '201' }
    expect(value(`${DURATIONS}_count`, made)).toBe(5)
    expect(value(`${DURATIONS}_bucket`, { ...made, le: '+Inf' })).toBe(5)
    expect(value(`${DURATIONS}_bucket`, { ...made, le: '30' })).toBe(5)
    expect(value(`${DURATIONS}_sum`, made)).toBeGreaterThan(0)
    expect(value(`${DURATIONS}_count`, { route: '/orders', status: '401' })).toBe(1)
  })

  test('is of the bucket it belongs to', async () => {
    const gate = createGate()
    const { port } = await startService({
      wrapOrders: delayInserts(gate),
    })
    const beganAt = performance.now()
    const held = send(port)
    await until(() => gate.arrived === 1 && performance.now() - beganAt > 300)
    gate.open()
    await held
    const { value } = await scrape(port)
    const labels = { route: '/orders', status: '201' }
    expect(value(`${DURATIONS}_bucket`, { ...labels, le: '0.25' })).toBe(0)
    expect(value(`${DURATIONS}_bucket`, { ...labels, le: '+Inf' })).toBe(1)
    expect(value(`${DURATIONS}_sum`, labels)).toBeGreaterThan(0.25)
  })

  test('has no label that a client makes up', async () => {
    const { port } = await startService()
    for (const path of ['/a', '/b?c=1', '/orders/1']) await send(port, { path })
    await send(port, { method: 'GET', path: '/problems/overloaded' })
    await send(port, { method: 'GET', path: '/problems/made-up' })
    const { text, value } = await scrape(port)
    const routes = [...text.matchAll(/_seconds_count\{.*?route="(.*?)"/g)].map(([, route]) => route)
    expect(new Set(routes)).toEqual(new Set(['unmatched', '/problems/:code']))
    expect(value(`${DURATIONS}_count`, { route: 'unmatched', status: '404' })).toBe(3)
  })

  test('counts a request whose client has gone away', async () => {
    const { url, isBlocking, unblock } = await blockInserts()
    const { port } = await startInstance({
      database: { url },
      redisSpace: undefined,
    })
    const request = open(port)
    request.on('error', () => {})
    await until(isBlocking)
    request.destroy()
    await unblock()
    const labels = { route: '/orders', status: '201' }
    await until(async () => (await scrape(port)).value(`${DURATIONS}_count`, labels) === 1)
  })
})

describe('the outcomes of keys', () => {
  test('count new orders, replays and keys that were used for another body', async () => {
    const { port } = await startService()
    const key = newKey()
    await send(port, { key })
    await send(port, { key })
    await send(port, { key, body: { ...ORDER, amount: 1 } })
    await send(port, { key: null })
    const counted = { ...NO_OUTCOMES, new: 1, replayed_cache: 1, mismatch: 1 }
    expect(await outcomesOf(port)).toEqual(counted)
  })

  test('count a replay that was rebuilt from the order', async () => {
    const stores = await createTestStores({ redis: false })
    const [one, other] = [await startInstance(stores), await startInstance(stores)]
    const key = newKey()
    await send(one.port, { key })
    await send(other.port, { key }) // its records are in a memory of its own
    expect(await outcomesOf(other.port)).toEqual({ ...NO_OUTCOMES, replayed_database: 1 })
  })

  test('count duplicates that were refused and duplicates that waited', async () => {
    const gate = createGate()
    const { port, waiting } = await startService({
      wrapOrders: delayInserts(gate),
    })
    const key = newKey()
    const first = send(port, { key })
    await until(() => gate.arrived === 1)
    expect((await send(port, { key })).status).toBe(409)
    const behind = send(port, { key, headers: { prefer: 'wait=30' } })
    await until(async () => (await waiting()) === 1)
    gate.open()
    expect([(await first).status, (await behind).status]).toEqual([201, 201])
    const counted = { ...NO_OUTCOMES, new: 1, in_progress: 1, waited: 1 }
    expect(await outcomesOf(port)).toEqual(counted)
  })

  test('leave out a request that failed, whose claim counts as given back', async () => {
    const { port } = await startService({
      wrapOrders: (orders) => ({
        ...orders,
        insertOnce: async () => {
          throw new Error('it fails')
        },
      }),
    })
    expect((await send(port)).status).toBe(500)
    expect(await outcomesOf(port)).toEqual(NO_OUTCOMES)
    const { value } = await scrape(port)
    expect(value('order_once_claims_released_total')).toBe(1)
    expect(value(`${DURATIONS}_count`, { route: '/orders', status: '500' })).toBe(1)
  })
})

test('requests beyond the limit are counted', async () => {
  const { port } = await startService({ env: { RATE_LIMIT_MAX: '2' } })
  for (let i = 0; i < 5; i++) await send(port)
  expect((await scrape(port)).value('order_once_rate_limited_total')).toBe(3)
})

test('wrong and missing signatures are counted, also of a client that is told to wait', async () => {
  const { port } = await startService({ env: { SIGNATURE_FAILURES_MAX: '2' } })
  const statuses = []
  for (const signature of ['0'.repeat(64), null, null, 'x']) {
    statuses.push((await send(port, { signature })).status)
  }
  expect(statuses).toEqual([401, 401, 429, 429])
  const { value } = await scrape(port)
  expect(value('order_once_signature_failures_total')).toBe(4)
  expect(value('order_once_rate_limited_total')).toBe(0)
})

test('inserts are counted by their size, and so are the orders that wait for one', async () => {
  const { url, isBlocking, unblock } = await blockInserts()
  const { port } = await startInstance({ database: { url }, redisSpace: undefined })
  const orders = sendAll(50, () => send(port))
  await until(isBlocking)
  await until(async () => (await scrape(port)).value('order_once_insert_queue_depth') > 0)
  const { value } = await scrape(port)
  expect(value('order_once_postgres_queries_pending')).toBeGreaterThan(0)
  expect(value('order_once_postgres_queries_limit')).toBe(1_000)
  expect(value('order_once_insert_queue_limit')).toBe(1_000)
  await unblock()
  expect((await orders).map(({ status }) => status)).toEqual(Array(50).fill(201))
  const after = await scrape(port)
  expect(after.value('order_once_insert_batch_size_sum')).toBe(50)
  expect(after.value('order_once_insert_batch_size_count')).toBeLessThan(50)
  expect(after.value('order_once_insert_queue_depth')).toBe(0)
})

test('Postgres that is gone is 0, and 1 when it is back', async () => {
  const { database } = await createTestStores({ redis: false })
  const { proxy, url } = await startProxy(database.url)
  const { port } = await startInstance({ database: { ...database, url }, redisSpace: undefined })
  const isUp = async () => (await scrape(port)).value('order_once_postgres_up')
  expect(await isUp()).toBe(1)
  proxy.hush()
  proxy.cutAll()
  await until(async () => (await isUp()) === 0)
  proxy.speak()
  await until(async () => (await isUp()) === 1)
})

test.runIf(redisServer)('Redis that is gone is told, and so are its errors', async () => {
  const server = await startPrivateRedis()
  onTestFinished(() => server.stop())
  const { database } = await createTestStores({ redis: false })
  const redisSpace = { url: server.url }
  const { port } = await startInstance({ database, redisSpace })
  const isDegraded = async () => (await scrape(port)).value('order_once_redis_degraded')
  expect(await isDegraded()).toBe(0)
  server.freeze()
  for (let i = 0; i < 5; i++) expect((await send(port)).status).toBe(201)
  await until(async () => (await isDegraded()) === 1)
  expect((await scrape(port)).value('order_once_redis_errors_total')).toBeGreaterThan(0)
  server.thaw()
  await until(async () => (await isDegraded()) === 0)
})
