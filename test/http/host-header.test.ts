import { describe, expect, test } from 'vitest'
import { isLoopbackName } from '../../src/http/host-header.ts'
import { newKey, send } from '../support/client.ts'
import { startProcess } from '../support/process.ts'
import { openSocket } from '../support/raw-socket.ts'
import { startService } from '../support/service.ts'
import { emptyDatabase } from '../support/stores.ts'
import { until } from '../support/until.ts'

const LOOPBACK = [
  'localhost',
  'LOCALHOST:8080',
  'shop.localhost',
  'localhost.:8080',
  '127.0.0.1',
  '127.9.9.9:1',
  '[::1]:8080',
]
const OTHERS = [
  'evil.example',
  '127.0.0.1.evil.example',
  'localhost.evil.example',
  'notlocalhost',
  'evil.example@localhost',
  'localhost/evil.example',
  '10.0.0.1',
  '[::2]',
  '0.0.0.0',
]

const sendTo = (port: number, host: string) => send(port, { headers: { host } })

describe('with the published secret on a loopback address', () => {
  test.each(LOOPBACK)('the Host %s is served', async (host) => {
    const { port } = await startService()
    expect((await sendTo(port, host)).status).toBe(201)
  })

  test.each(OTHERS)('the Host %s is refused with 421, on every path', async (host) => {
    const { port, countOrders } = await startService()
    const reply = await sendTo(port, host)
    expect(reply).toMatchObject({ status: 421, json: { code: 'misdirected-request' } })
    for (const path of ['/', '/health/live', '/metrics', '/nothing']) {
      const { status } = await send(port, { method: 'GET', path, headers: { host } })
      expect(status).toBe(421)
    }
    expect(await countOrders()).toBe(0)
  })

  test('the name of PUBLIC_URL is served, with its port and no other', async () => {
    const { port } = await startService({ env: { PUBLIC_URL: 'https://Orders.example.com:8443' } })
    expect((await sendTo(port, 'orders.example.com:8443')).status).toBe(201)
    expect((await sendTo(port, 'orders.example.com')).status).toBe(421)
  })

  test('the name of PUBLIC_URL is served in any case, with or without its default port', async () => {
    const { port } = await startService({ env: { PUBLIC_URL: 'https://orders.example.com' } })
    expect((await sendTo(port, 'Orders.Example.com')).status).toBe(201)
    expect((await sendTo(port, 'orders.example.com:443')).status).toBe(201)
    expect((await sendTo(port, 'orders.example.com:80')).status).toBe(421)
  })

  test('other names are refused on METRICS_PORT, too', async () => {
    const { url } = await emptyDatabase()
    const service = await startProcess({ DATABASE_URL: url, METRICS_PORT: '0' })
    const port = Number(/metrics are served at [^"]*:(\d+)/.exec(service.stdout())?.[1])
    const readMetrics = (host: string) =>
      send(port, { method: 'GET', path: '/metrics', headers: { host } })
    expect((await readMetrics('localhost')).status).toBe(200)
    expect((await readMetrics('evil.example')).status).toBe(421)
  })

  test('HTTP/1.0 without a Host is served', async () => {
    const { port } = await startService()
    const client = openSocket(port, 'GET /health/live HTTP/1.0\r\n\r\n')
    await until(client.isClosed)
    expect(client.responses()[0]?.status).toBe(200)
  })
})

test.each([
  ['a secret of its own', { HMAC_SECRET: 'a-secret-that-is-not-published' }],
  ['an address that others reach', { HOST: '0.0.0.0' }],
])('with %s, any Host is served', async (_name, env) => {
  const { port } = await startService({ env })
  const secret = 'HMAC_SECRET' in env ? env.HMAC_SECRET : undefined
  const reply = await send(port, {
    headers: { host: 'orders.example.com' },
    key: newKey(),
    ...(secret && { secret }),
  })
  expect(reply.status).toBe(201)
})

test.each(['127.0.0.1', '::1', 'localhost'])('HOST=%s is a loopback address', (host) => {
  expect(isLoopbackName(host)).toBe(true)
})
