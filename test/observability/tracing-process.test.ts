import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { parseSettings } from '../../src/settings.ts'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { send, sendAll } from '../support/client.ts'
import { startCollector } from '../support/collector.ts'
import {
  createTemporaryFolder,
  type ServiceProcess,
  spawnService,
  startProcess,
} from '../support/process.ts'
import { emptyDatabase, emptyRedisSpace } from '../support/stores.ts'
import { until } from '../support/until.ts'

const STEPS = ['claim', 'insert', 'complete', 'POST /orders']

async function startCollectorForTest(options?: { responds: boolean }) {
  const collector = await startCollector(options)
  onTestFinished(() => collector.close())
  return collector
}

/** Runs the service for one order. @returns the files of all modules that it loaded */
async function listLoadedModules(env: Record<string, string>): Promise<string[]> {
  const folder = await createTemporaryFolder()
  const { url } = await emptyDatabase()
  const service = await startProcess({ DATABASE_URL: url, NODE_V8_COVERAGE: folder, ...env })
  expect((await send(service.port)).status).toBe(201)
  expect(await service.stop()).toBe(0)
  const [file = ''] = await readdir(folder)
  const { result } = JSON.parse(await readFile(join(folder, file), 'utf8'))
  return result.map((script: { url: string }) => script.url)
}

/** Without its API, which does nothing by itself and is always loaded, by prom-client. */
const selectOpenTelemetry = (modules: string[]) =>
  modules.filter((url) =>
    /@opentelemetry\/(?!api\/)|@fastify\/otel|dist\/observability\/trac/.test(url),
  )

test('without a collector, OpenTelemetry is not loaded', async () => {
  const modules = await listLoadedModules({})
  expect(modules.some((url) => url.includes('/fastify/'))).toBe(true)
  expect(selectOpenTelemetry(modules)).toEqual([])
})

test('with a collector, OpenTelemetry is loaded, and the last spans are sent when the process ends', async () => {
  const collector = await startCollectorForTest()
  const modules = await listLoadedModules({
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_BSP_SCHEDULE_DELAY: '3600000',
  })
  expect(selectOpenTelemetry(modules)).not.toEqual([])
  expect(new Set(collector.spans().map(({ name }) => name))).toEqual(new Set(STEPS))
})

test('the settings of OpenTelemetry are read from .env, too', async () => {
  const collector = await startCollectorForTest()
  const { url } = await emptyDatabase()
  const folder = await createTemporaryFolder()
  const lines = [
    `OTEL_EXPORTER_OTLP_ENDPOINT=${collector.url}`,
    'OTEL_EXPORTER_OTLP_HEADERS=x-tenant=shop',
    'OTEL_SERVICE_NAME=shop-orders',
    'OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=staging,service.version=42',
    'OTEL_TRACES_SAMPLER=traceidratio',
    'OTEL_TRACES_SAMPLER_ARG=1',
  ]
  await writeFile(join(folder, '.env'), lines.join('\n'))
  const service = await spawnService({ DATABASE_URL: url }, { folder })
  await until(() => service.stdout().includes('listens on'))
  await send(service.port)
  await service.stop()
  expect(collector.received[0]?.headers).toMatchObject({ 'x-tenant': 'shop' })
  expect(collector.spans()[0]?.resource).toMatchObject({
    'service.name': 'shop-orders',
    'service.version': '42',
    'deployment.environment.name': 'staging',
  })
})

test('each of several processes sends its own spans', async () => {
  const collector = await startCollectorForTest()
  const { url } = await emptyDatabase()
  const service = await startProcess({
    DATABASE_URL: url,
    REDIS_URL: (await emptyRedisSpace()).url,
    WORKERS: '2',
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
  })
  // Each on a connection of its own, so that both processes get some.
  await sendAll(20, () => send(service.port))
  expect(await service.stop()).toBe(0)
  const spans = collector.spans()
  expect(spans.filter(({ name }) => name === 'POST /orders')).toHaveLength(20)
  expect(new Set(spans.map(({ resource }) => resource['service.instance.id'])).size).toBe(2)
})

test.each(['refuses connections', 'does not respond'])(
  'a collector that %s does not affect orders, and is reported once',
  async (state) => {
    const collector = await startCollectorForTest({ responds: false })
    const absent = `http://127.0.0.1:${await freePort()}`
    const { url } = await emptyDatabase()
    const service = await startProcess({
      DATABASE_URL: url,
      OTEL_EXPORTER_OTLP_ENDPOINT: state === 'does not respond' ? collector.url : absent,
      OTEL_EXPORTER_OTLP_TIMEOUT: '100',
      OTEL_BSP_SCHEDULE_DELAY: '1',
    })
    // More spans than are kept, and more than one failure to send them.
    for (let round = 0; round < 10; round++) {
      const replies = await sendAll(50, () => send(service.port))
      expect(replies.every(({ status }) => status === 201)).toBe(true)
    }
    await until(() => findWarnings(service).length > 0)
    expect(await service.stop()).toBe(0)
    expect(findWarnings(service)).toHaveLength(1)
  },
)

test('a collector that does not respond does not delay the end of the process', async () => {
  const collector = await startCollectorForTest({ responds: false })
  const { url } = await emptyDatabase()
  const service = await startProcess({
    DATABASE_URL: url,
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_EXPORTER_OTLP_TIMEOUT: '3600000',
  })
  expect((await send(service.port)).status).toBe(201)
  // Without a limit of its own, the last export would last beyond that of the shutdown: exit code 1.
  expect(await service.stop()).toBe(0)
  expect(findWarnings(service)).toHaveLength(1)
})

const findWarnings = (service: ServiceProcess) =>
  service.logLines().filter(({ msg }) => `${msg}`.startsWith('some traces are not sent'))

test.each([
  ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318', 'a URL that begins with http:// or https://'],
  ['OTEL_EXPORTER_OTLP_ENDPOINT', 'http://', 'a URL that begins with http:// or https://'],
  ['OTEL_RESOURCE_ATTRIBUTES', 'staging', 'name=value pairs, separated by commas'],
  ['OTEL_TRACES_SAMPLER', 'sometimes', 'always_on, always_off, traceidratio'],
  ['OTEL_TRACES_SAMPLER_ARG', '2', 'a number from 0 to 1'],
])('%s=%s is refused', (name, value, rule) => {
  expect(() => parseSettings({ [name]: value })).toThrow(`${name} must be ${rule}`)
})
