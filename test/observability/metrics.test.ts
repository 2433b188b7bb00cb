import { describe, expect, onTestFinished, test } from 'vitest'
import { createMetrics } from '../../src/observability/metrics.ts'
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
const CREATED = { route: '/orders', status: '201' }

const readOutcomes = async (port: number) => {
  const { value } = await scrape(port)
  const names = ['new', 'replayed_cache', 'replayed_database', 'mismatch', 'in_progress', 'waited']
  return Object.fromEntries(
    names.map((outcome) => [outcome, value(OUTCOMES, { client: 'default', outcome })]),
  )
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
  test('has every series from the start, with its help and type', async () => {
    const { port } = await startService()
    const { text } = await scrape(port)
    for (const [name, type] of [
      [OUTCOMES, 'counter'],
      ['order_once_rate_limited_total', 'counter'],
      ['order_once_signature_failures_total', 'counter'],
      ['order_once_claims_released_total', 'counter'],
      ['order_once_waiting_duplicates', 'gauge'],
      ['order_once_row_mismatches_total', 'counter'],
      ['order_once_corrupt_records_total', 'counter'],
      ['order_once_foreign_records_total', 'counter'],
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
    expect(await readOutcomes(port)).toEqual(NO_OUTCOMES)
  })

  test.runIf(hasPromtool)('passes `promtool check metrics`', async () => {
    const { port } = await startService()
    await send(port)
    await send(port, { path: '/nowhere' })
    await scrape(port)
    expect(promtool(['check', 'metrics'], (await scrape(port)).text)).toEqual({
      status: 0,
      output: '',
    })
  })

  test('needs no signature, does not count for the rate limit and is not logged', async () => {
    const { port, logLines } = await startService({ env: { RATE_LIMIT_MAX: '1' } })
    for (let i = 0; i < 3; i++) await scrape(port)
    expect((await send(port)).status).toBe(201)
    await until(() => logLines.some(({ route }) => route === '/orders'))
    expect(logLines.filter(({ msg }) => msg === 'request')).toHaveLength(1)
  })
})

describe('the duration of requests', () => {
  test('is counted by route and status, in cumulative buckets', async () => {
    const { port } = await startService()
    await sendAll(5, () => send(port))
    await send(port, { signature: null })
    const { value } = await scrape(port)
    expect(value(`${DURATIONS}_count`, CREATED)).toBe(5)
    expect(value(`${DURATIONS}_bucket`, { ...CREATED, le: '+Inf' })).toBe(5)
    expect(value(`${DURATIONS}_bucket`, { ...CREATED, le: '30' })).toBe(5)
    expect(value(`${DURATIONS}_sum`, CREATED)).toBeGreaterThan(0)
    expect(value(`${DURATIONS}_count`, { route: '/orders', status: '401' })).toBe(1)
  })

  test('is counted in every bucket from its own upwards', async () => {
    const metrics = createMetrics()
    metrics.countResponse('/orders', 201, 0.3, 'new', 'default')
    const { values } = (await metrics.registry.getSingleMetric(DURATIONS)?.get()) ?? { values: [] }
    const buckets = values.filter(({ labels }) => 'le' in labels)
    const counted = buckets.filter(({ value }) => value === 1).map(({ labels }) => labels.le)
    expect(counted).toEqual([0.5, 1, 2.5, 5, 10, 30, '+Inf'])
    expect(buckets.filter(({ value }) => value === 0)).toHaveLength(8)
  })

  test('is in seconds, and ends before that in the log', async () => {
    const { port, logLines } = await startService()
    await send(port)
    const line = await until(() => logLines.find(({ msg }) => msg === 'request'))
    const seconds = (await scrape(port)).value(`${DURATIONS}_sum`, CREATED)
    expect(seconds).toBeGreaterThan(0)
    expect(seconds * 1000).toBeLessThanOrEqual(line.duration_ms as number)
  })

  test('has no label with text of a client', async () => {
    const { port } = await startService()
    for (const path of ['/a', '/b?c=1', '/orders/1/2']) await send(port, { path })
    await send(port, { method: 'GET', path: '/problems/overloaded' })
    await send(port, { method: 'GET', path: '/problems/made-up' })
    const { text, value } = await scrape(port)
    const routes = [...text.matchAll(/_seconds_count\{.*?route="(.*?)"/g)].map(([, route]) => route)
    expect(new Set(routes)).toEqual(new Set(['unmatched', '/problems/:code']))
    expect(value(`${DURATIONS}_count`, { route: 'unmatched', status: '404' })).toBe(3)
  })

  test('is counted for a request whose client has disconnected', async () => {
    const { url, isBlocking, unblock } = await blockInserts()
    const { port } = await startInstance({ database: { url } })
    const request = open(port)
    request.on('error', () => {})
    await until(isBlocking)
    request.destroy()
    await unblock()
    await until(async () => (await scrape(port)).value(`${DURATIONS}_count`, CREATED) === 1)
  })
})

describe('the outcomes of keys', () => {
  test('count new orders, replays and reused keys', async () => {
    const { port } = await startService()
    const key = newKey()
    await send(port, { key })
    await send(port, { key })
    await send(port, { key, body: { ...ORDER, amount: 1 } })
    await send(port, { key: null })
    const counted = { ...NO_OUTCOMES, new: 1, replayed_cache: 1, mismatch: 1 }
    expect(await readOutcomes(port)).toEqual(counted)
  })

  test('count a replay that was rebuilt from Postgres', async () => {
    const stores = await createTestStores({ redis: false })
    const [one, other] = [await startInstance(stores), await startInstance(stores)]
    const key = newKey()
    await send(one.port, { key })
    await send(other.port, { key }) // it keeps its own records, in memory
    expect(await readOutcomes(other.port)).toEqual({ ...NO_OUTCOMES, replayed_database: 1 })
  })

  test('count duplicates that were refused and those that waited', async () => {
    const gate = createGate()
    const { port, waiting } = await startService({
      wrapOrders: delayInserts(gate),
    })
    const key = newKey()
    const first = send(port, { key })
    await until(() => gate.arrived === 1)
    expect((await send(port, { key })).status).toBe(409)
    const duplicate = send(port, { key, headers: { prefer: 'wait=30' } })
    await until(async () => (await waiting()) === 1)
    gate.open()
    expect([(await first).status, (await duplicate).status]).toEqual([201, 201])
    const counted = { ...NO_OUTCOMES, new: 1, in_progress: 1, waited: 1 }
    expect(await readOutcomes(port)).toEqual(counted)
  })

  test('do not include a request that failed; its claim counts as released', async () => {
    const { port } = await startService({
      wrapOrders: (orders) => ({
        ...orders,
        insertOnce: async () => {
          throw new Error('it fails')
        },
      }),
    })
    expect((await send(port)).status).toBe(500)
    expect(await readOutcomes(port)).toEqual(NO_OUTCOMES)
    const { value } = await scrape(port)
    expect(value('order_once_claims_released_total')).toBe(1)
    expect(value(`${DURATIONS}_count`, { route: '/orders', status: '500' })).toBe(1)
  })
})

test('requests beyond the rate limit are counted', async () => {
  const { port } = await startService({ env: { RATE_LIMIT_MAX: '2' } })
  for (let i = 0; i < 5; i++) await send(port)
  expect((await scrape(port)).value('order_once_rate_limited_total')).toBe(3)
})

test('wrong and missing signatures are counted, also those refused with 429', async () => {
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

test('inserts are counted by their size, and the orders that wait for one are counted', async () => {
  const { url, isBlocking, unblock } = await blockInserts()
  const { port } = await startInstance({ database: { url } })
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

test('order_once_postgres_up is 0 while Postgres does not respond, and then 1 again', async () => {
  const { database } = await createTestStores({ redis: false })
  const { proxy, url } = await startProxy(database.url)
  const { port } = await startInstance({ database: { url } })
  const isUp = async () => (await scrape(port)).value('order_once_postgres_up')
  expect(await isUp()).toBe(1)
  proxy.silence()
  proxy.resetAll()
  await until(async () => (await isUp()) === 0)
  proxy.resume()
  await until(async () => (await isUp()) === 1)
})

test.runIf(redisServer)(
  'order_once_redis_degraded is 1 while Redis does not respond; failed calls are counted',
  async () => {
    const server = await startPrivateRedis()
    onTestFinished(() => server.stop())
    const { database } = await createTestStores({ redis: false })
    const { port } = await startInstance({ database, redisSpace: { url: server.url } })
    const isDegraded = async () => (await scrape(port)).value('order_once_redis_degraded')
    expect(await isDegraded()).toBe(0)
    server.freeze()
    for (let i = 0; i < 5; i++) expect((await send(port)).status).toBe(201)
    await until(async () => (await isDegraded()) === 1)
    expect((await scrape(port)).value('order_once_redis_errors_total')).toBeGreaterThan(0)
    server.thaw()
    await until(async () => (await isDegraded()) === 0)
  },
)
