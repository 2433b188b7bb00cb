import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { parseSettings } from '../../src/settings.ts'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { send, sendAll } from '../support/client.ts'
import { startCollector } from '../support/collector.ts'
import { createTemporaryFolder, spawnService, startProcess } from '../support/process.ts'
import { emptyDatabase, emptyRedisSpace } from '../support/stores.ts'
import { until } from '../support/until.ts'

const STEPS = ['claim', 'insert', 'complete', 'POST /orders']

async function startCollectorForTest(options?: { answers: boolean }) {
  const collector = await startCollector(options)
  onTestFinished(() => collector.close())
  return collector
}

/** Runs the service for one order. @returns the files of all modules that it loaded */
async function modulesLoadedWith(env: Record<string, string>): Promise<string[]> {
  const folder = await createTemporaryFolder()
  const { url } = await emptyDatabase()
  const service = await startProcess({ DATABASE_URL: url, NODE_V8_COVERAGE: folder, ...env })
  expect((await send(service.port)).status).toBe(201)
  expect(await service.stop()).toBe(0)
  const [file = ''] = await readdir(folder)
  const { result } = JSON.parse(await readFile(join(folder, file), 'utf8'))
  return result.map((script: { url: string }) => script.url)
}

/** Without its API, which does nothing by itself, and which prom-client loads in any case. */
const ofOpenTelemetry = (modules: string[]) =>
  modules.filter((url) =>
    /@opentelemetry\/(?!api\/)|@fastify\/otel|dist\/observability\/trac/.test(url),
  )

test('without a collector, OpenTelemetry is not loaded', async () => {
  const modules = await modulesLoadedWith({})
  expect(modules.some((url) => url.includes('/fastify/'))).toBe(true)
  expect(ofOpenTelemetry(modules)).toEqual([])
})

test('with one, OpenTelemetry is loaded, and what is left to send is sent at the end', async () => {
  const collector = await startCollectorForTest()
  const modules = await modulesLoadedWith({
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_BSP_SCHEDULE_DELAY: '3600000',
  })
  expect(ofOpenTelemetry(modules)).not.toEqual([])
  expect(new Set(collector.spans().map(({ name }) => name))).toEqual(new Set(STEPS))
})

test('the settings of OpenTelemetry may stand in .env', async () => {
  const collector = await startCollectorForTest()
  const { url } = await emptyDatabase()
  const folder = await createTemporaryFolder()
  const lines = [
    `OTEL_EXPORTER_OTLP_ENDPOINT=${collector.url}`,
    'OTEL_EXPORTER_OTLP_HEADERS=x-tenant=shop',
    'OTEL_SERVICE_NAME=shop-orders',
    'OTEL_TRACES_SAMPLER=traceidratio',
    'OTEL_TRACES_SAMPLER_ARG=1',
  ]
  await writeFile(join(folder, '.env'), lines.join('\n'))
  const service = await spawnService({ DATABASE_URL: url }, folder)
  await until(() => service.stdout().includes('listens on'))
  await send(service.port)
  await service.stop()
  expect(collector.received[0]?.headers).toMatchObject({ 'x-tenant': 'shop' })
  expect(collector.spans()[0]?.resource).toMatchObject({ 'service.name': 'shop-orders' })
})

test('each of several processes sends its own', async () => {
  const collector = await startCollectorForTest()
  const { url } = await emptyDatabase()
  const service = await startProcess({
    DATABASE_URL: url,
    REDIS_URL: (await emptyRedisSpace()).url,
    WORKERS: '2',
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
  })
  // Each on a connection of its own, and so now to this process and now to that.
  await sendAll(20, () => send(service.port))
  expect(await service.stop()).toBe(0)
  const spans = collector.spans()
  expect(spans.filter(({ name }) => name === 'POST /orders')).toHaveLength(20)
  expect(new Set(spans.map(({ resource }) => resource['process.pid'])).size).toBe(2)
})

test.each(['is down', 'does not answer'])(
  'a collector that %s disturbs neither orders nor the end, and is told of once',
  async (state) => {
    const collector = await startCollectorForTest({ answers: false })
    const { url } = await emptyDatabase()
    const service = await startProcess({
      DATABASE_URL: url,
      OTEL_EXPORTER_OTLP_ENDPOINT:
        state === 'is down' ? `http://127.0.0.1:${await freePort()}` : collector.url,
      OTEL_EXPORTER_OTLP_TIMEOUT: '100',
      OTEL_BSP_SCHEDULE_DELAY: '1',
    })
    const warnings = () =>
      service.logLines().filter(({ msg }) => /^some traces are not sent/.test(`${msg}`))
    // More spans than are kept, and more than one failure to send them.
    for (let round = 0; round < 10; round++) {
      const replies = await sendAll(50, () => send(service.port))
      expect(replies.every(({ status }) => status === 201)).toBe(true)
    }
    await until(() => warnings().length > 0)
    const stoppedAt = performance.now()
    expect(await service.stop()).toBe(0)
    expect(performance.now() - stoppedAt).toBeLessThan(5_000)
    expect(warnings()).toHaveLength(1)
  },
)

test.each([
  ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318', 'a URL that begins with http:// or https://'],
  ['OTEL_EXPORTER_OTLP_ENDPOINT', 'http://', 'a URL that begins with http:// or https://'],
  ['OTEL_TRACES_SAMPLER', 'sometimes', 'always_on, always_off, traceidratio'],
  ['OTEL_TRACES_SAMPLER_ARG', '2', 'a number from 0 to 1'],
])('%s may not be "%s"', (name, value, rule) => {
  expect(() => parseSettings({ [name]: value })).toThrow(`${name} must be ${rule}`)
})
