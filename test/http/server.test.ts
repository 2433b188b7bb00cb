import { Agent } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fastify } from 'fastify'
import { describe, expect, onTestFinished, test } from 'vitest'
import { MAX_REQUESTS_PER_CONNECTION } from '../../src/http/connections.ts'
import { createServerOptions } from '../../src/http/server.ts'
import { STALLED_CONNECTION_TIMEOUT_MS } from '../../src/limits.ts'
import { get, newKey, send } from '../support/client.ts'
import { startProcess } from '../support/process.ts'
import { formatOrder, openSocket } from '../support/raw-socket.ts'
import { startService } from '../support/service.ts'
import { emptyDatabase } from '../support/stores.ts'
import { until } from '../support/until.ts'

const formatGet = (path: string) => `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`

/** Starts a server that has nothing but the limits; it responds with 64 KiB, or never to `/never`. */
async function startServer() {
  const { options } = createServerOptions({ keepAliveTimeoutMs: 1_000, maxBodyBytes: 1_000 })
  const app = fastify(options)
  let handled = 0
  app.get('/', async () => {
    handled++
    return 'x'.repeat(65_536)
  })
  app.get('/never', () => {
    handled++
    return new Promise(() => {})
  })
  app.get('/endless', (_request, reply) => reply.send(Buffer.alloc(64 * 1024 * 1024)))
  await app.listen({ host: '127.0.0.1', port: 0 })
  onTestFinished(() => {
    app.server.closeAllConnections()
    return app.close()
  })
  return { app, port: (app.server.address() as AddressInfo).port, handled: () => handled }
}

describe('the requests of one connection', () => {
  test.each(['/', '/never'])('to %s are handled up to a limit, then it is closed', async (path) => {
    const { port, handled } = await startServer()
    const client = openSocket(port)
    client.socket.pause() // it reads no response
    client.socket.write(formatGet(path).repeat(1_500))
    await until(handled)
    client.socket.resume()
    await until(client.isClosed)
    expect(handled()).toBeLessThanOrEqual(MAX_REQUESTS_PER_CONNECTION)
  })

  test('may be many, one after the other', async () => {
    const { port, handled } = await startServer()
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    onTestFinished(() => agent.destroy())
    const count = 2 * MAX_REQUESTS_PER_CONNECTION
    for (let i = 0; i < count; i++) await send(port, { method: 'GET', path: '/', agent })
    expect(handled()).toBe(count)
  })

  test('are limited on METRICS_PORT, too', async () => {
    const { url } = await emptyDatabase()
    const service = await startProcess({ DATABASE_URL: url, METRICS_PORT: '0' })
    const port = Number(/metrics are served at [^"]*:(\d+)/.exec(service.stdout())?.[1])
    const client = openSocket(port, formatGet('/metrics').repeat(1_500))
    await until(client.isClosed)
    expect(client.responses().length).toBeLessThanOrEqual(MAX_REQUESTS_PER_CONNECTION)
    expect((await get(port, '/metrics')).status).toBe(200)
  })
})

test('a client that does not read its response is disconnected', async () => {
  const { app, port } = await startServer()
  expect(app.server.timeout).toBe(STALLED_CONNECTION_TIMEOUT_MS)
  app.server.timeout = 500
  const client = openSocket(port)
  client.socket.pause()
  client.socket.write(formatGet('/endless'))
  await until(() => client.socket.bytesWritten > 0)
  await until(
    () =>
      new Promise((resolve) => app.server.getConnections((_error, count) => resolve(count === 0))),
  )
})

describe('header lines after the two thousandth', () => {
  const MANY_LINES = Array(2_100).fill('a:')

  test('count: a second Idempotency-Key is refused', async () => {
    const { port, countOrders } = await startService()
    const bytes = formatOrder().replace(
      '\r\n\r\n',
      `\r\n${MANY_LINES.join('\r\n')}\r\nIdempotency-Key: ${newKey()}\r\n\r\n`,
    )
    const client = openSocket(port, bytes)
    await until(() => client.responses().length === 1)
    expect(client.responses()[0]).toMatchObject({ status: 400 })
    expect(client.responses()[0]?.text).toContain('idempotency-key-invalid')
    expect(await countOrders()).toBe(0)
  })

  test('count: the address that the proxy adds is that of the client', async () => {
    const { port } = await startService({
      env: { TRUST_PROXY: '127.0.0.1', RATE_LIMIT_MAX: '1' },
    })
    const statuses = []
    for (const forged of ['192.0.2.1', '192.0.2.2']) {
      const bytes = formatOrder().replace(
        '\r\n\r\n',
        `\r\nX-Forwarded-For: ${forged}\r\n${MANY_LINES.join('\r\n')}\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n`,
      )
      const client = openSocket(port, bytes)
      await until(() => client.responses().length === 1)
      statuses.push(client.responses()[0]?.status)
    }
    expect(statuses).toEqual([201, 429])
  })
})

describe('a client that resets its connection when its request has arrived', () => {
  const COUNT = 40

  test('is counted by its address, and is no error', async () => {
    const { app, port, logLines } = await startService({
      env: { SIGNATURE_FAILURES_MAX: `${COUNT}` },
    })
    for (let i = 0; i < COUNT; i++) {
      const client = openSocket(port)
      app.server.once('request', () => client.socket.resetAndDestroy())
      client.socket.write(formatOrder({ signature: '0'.repeat(64) }))
      await until(client.isClosed)
    }
    const metric = app.metrics.registry.getSingleMetric('order_once_signature_failures_total')
    await until(async () => (await metric?.get())?.values[0]?.value === COUNT)
    expect((await send(port, { signature: null })).status).toBe(429)
    expect(logLines.filter(({ level }) => Number(level) >= 50)).toEqual([])
  })
})
