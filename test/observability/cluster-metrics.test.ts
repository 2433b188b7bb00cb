import { expect, test } from 'vitest'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { get, newKey, send, sendAll } from '../support/client.ts'
import { type ServiceProcess, spawnService, startProcess } from '../support/process.ts'
import { hasPromtool, promtool } from '../support/promtool.ts'
import { type Scrape, scrape } from '../support/scrape.ts'
import { emptyDatabase, emptyRedisSpace } from '../support/stores.ts'
import { until } from '../support/until.ts'

const CREATED = { route: '/orders', status: '201' }

/** Prometheus's default. */
const SCRAPE_TIMEOUT_MS = 10_000

/** Starts the service in two processes. */
async function startTwo(env: Record<string, string> = {}) {
  const { url } = await emptyDatabase()
  const redis = await emptyRedisSpace()
  return startProcess({ DATABASE_URL: url, REDIS_URL: redis.url, WORKERS: '2', ...env })
}

async function countOrders(port: number): Promise<number> {
  return (await scrape(port)).value('http_request_duration_seconds_count', CREATED)
}

/** The processes that have served orders. */
const findServers = (service: ServiceProcess) => [
  ...new Set(
    service
      .logLines()
      .filter(({ route }) => route === '/orders')
      .map(({ pid }) => pid as number),
  ),
]

async function createOrdersInBoth(service: ServiceProcess): Promise<number> {
  const COUNT = 40
  // Each on a connection of its own, so that both processes get some.
  await sendAll(COUNT, () => send(service.port))
  await until(() => findServers(service).length === 2)
  return COUNT
}

/** Kills a process of the service, waits for its replacement, and so on. */
async function killInTurn(service: ServiceProcess, times: number): Promise<void> {
  const findReady = () => service.logLines().filter(({ msg }) => `${msg}`.startsWith('ready at'))
  for (let i = 0; i < times; i++) {
    process.kill(findReady()[i]?.pid as number, 'SIGKILL')
    await until(() => findReady().length === 3 + i)
  }
}

/** The series of counters and histograms that are lower than before, or gone. */
function findFallenCounters(before: string, after: Scrape): string[] {
  const types = new Map(
    [...before.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name, type]),
  )
  const values = new Map(after.text.split('\n').map((line) => splitAtLast(line)))
  return before.split('\n').filter((line) => {
    const [series, value] = splitAtLast(line)
    const name = series.replace(/\{.*/, '')
    const type = types.get(name) ?? types.get(name.replace(/_(bucket|sum|count)$/, ''))
    if (type !== 'counter' && type !== 'histogram') return false
    return !(Number(values.get(series)) >= Number(value))
  })
}

const splitAtLast = (line: string): [string, string] => {
  const end = line.lastIndexOf(' ')
  return [line.slice(0, end), line.slice(end + 1)]
}

test('the metrics of several processes are their sum, whichever process reads them', async () => {
  const service = await startTwo()
  const count = await createOrdersInBoth(service)
  for (let i = 0; i < 4; i++) expect(await countOrders(service.port)).toBe(count)
  const { text, value } = await scrape(service.port)
  expect(
    value('order_once_idempotency_outcomes_total', { client: 'default', outcome: 'new' }),
  ).toBe(count)
  expect(value('order_once_insert_batch_size_sum')).toBe(count)
  expect(value('order_once_postgres_up')).toBe(1)
  expect(value('order_once_redis_degraded')).toBe(0)
  expect(value('order_once_insert_queue_limit')).toBe(2_000)
  expect(text).toContain('\nprocess_cpu_seconds_total ')
  expect(text).toContain('\nnodejs_eventloop_lag_p99_seconds ')
  if (hasPromtool) expect(promtool(['check', 'metrics'], text)).toEqual({ status: 0, output: '' })
})

test('the sum does not fall when a process dies', async () => {
  const service = await startTwo()
  const count = await createOrdersInBoth(service)
  expect(await countOrders(service.port)).toBe(count)
  const [victim] = findServers(service)
  process.kill(victim as number, 'SIGKILL')
  await until(() => service.stdout().includes(`worker ${victim} exited`))
  expect(await countOrders(service.port)).toBe(count)
  expect((await send(service.port)).status).toBe(201)
  expect(await countOrders(service.port)).toBe(count + 1)
})

test('no counter falls and no scrape fails while processes are killed and replaced again and again', async () => {
  const service = await startTwo({ METRICS_PORT: '0' })
  const port = findMetricsPort(service)
  await createOrdersInBoth(service)
  const KILLS = 3
  let isKilling = true
  let earlier = await scrape(port)
  const before = await countOrders(port)
  const killing = killInTurn(service, KILLS).finally(() => {
    isKilling = false
  })
  killing.catch(() => {}) // thrown by the await below
  while (isKilling) {
    // Not waited for: some go to a process that is killed.
    void send(service.port).catch(() => {})
    const later = await scrape(port)
    expect(findFallenCounters(earlier.text, later)).toEqual([])
    earlier = later
  }
  await killing
  expect(await countOrders(port)).toBeGreaterThan(before)
})

test('a process that hangs does not prevent a scrape, and is included in the sum', async () => {
  const service = await startTwo({ METRICS_PORT: `${await freePort()}` })
  const port = findMetricsPort(service)
  const count = await createOrdersInBoth(service)
  const before = await scrape(port)
  const [victim] = findServers(service) as [number]
  process.kill(victim, 'SIGSTOP')
  try {
    const startedAt = performance.now()
    const during = await scrape(port)
    expect(during.value('http_request_duration_seconds_count', CREATED)).toBe(count)
    expect(findFallenCounters(before.text, during)).toEqual([])
    expect(performance.now() - startedAt).toBeLessThan(SCRAPE_TIMEOUT_MS)
  } finally {
    process.kill(victim, 'SIGCONT')
  }
})

test.each([1, 2])(
  'METRICS_PORT serves them instead of the public port, with WORKERS=%d',
  async (workers) => {
    const { url } = await emptyDatabase()
    const service = await startProcess({
      DATABASE_URL: url,
      REDIS_URL: (await emptyRedisSpace()).url,
      WORKERS: `${workers}`,
      METRICS_PORT: '0',
    })
    const port = findMetricsPort(service)
    const key = newKey()
    await send(service.port, { key })
    await send(service.port, { key })
    expect(await get(service.port, '/metrics')).toMatchObject({
      status: 404,
      json: { code: 'not-found' },
    })
    expect((await get(service.port, '/health/ready')).status).toBe(200)
    expect(await countOrders(port)).toBe(2)
    expect(await get(port, '/')).toMatchObject({ status: 404 })
    expect(await send(port, { path: '/metrics' })).toMatchObject({ status: 405 })
    expect((await send(port)).status).toBe(404)
    expect(await service.stop()).toBe(0)
    await expect(get(port, '/metrics')).rejects.toThrow('ECONNREFUSED')
  },
)

test('a METRICS_PORT that is in use stops the start with one line', async () => {
  const { url } = await emptyDatabase()
  const one = await startProcess({ DATABASE_URL: url })
  const other = await spawnService({ DATABASE_URL: url, METRICS_PORT: `${one.port}` })
  expect(await other.ended).toBe(1)
  expect(other.stderr()).toBe(
    `order-once cannot start: port ${one.port} on 127.0.0.1 is in use: stop the program that uses it, or set METRICS_PORT to another port\n`,
  )
})

function findMetricsPort(service: ServiceProcess): number {
  const line = service.logLines().find(({ msg }) => `${msg}`.startsWith('metrics are served'))
  return Number(new URL(`${line?.msg}`.replace('metrics are served at ', '')).port)
}
