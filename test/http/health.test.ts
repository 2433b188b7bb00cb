import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Redis } from 'ioredis'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { blockInserts } from '../support/blocked-inserts.ts'
import { get, send } from '../support/client.ts'
import { redisServer, startPrivateRedis } from '../support/private-redis.ts'
import { startProcess } from '../support/process.ts'
import { openSocket } from '../support/raw-socket.ts'
import { scrape } from '../support/scrape.ts'
import { createTestStores, startInstance, startService } from '../support/service.ts'
import { startProxy } from '../support/start-proxy.ts'
import { hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

/** The prototype of the histogram in which Node measures the delay of the event loop. */
const HISTOGRAM = Object.getPrototypeOf(Object.getPrototypeOf(monitorEventLoopDelay()))

const live = (port: number) => get(port, '/health/live')
const ready = (port: number) => get(port, '/health/ready')

/** An instance whose Postgres is behind a proxy. */
async function startBehindProxy() {
  const { database } = await createTestStores({ redis: false })
  const { proxy, url } = await startProxy(database.url)
  return { ...(await startInstance({ database: { url } })), proxy }
}

describe('GET /health/live', () => {
  test('needs no signature and must not be cached', async () => {
    const { port } = await startService()
    const reply = await live(port)
    expect(reply).toMatchObject({ status: 200, json: { status: 'live' } })
    expect(reply.headers['cache-control']).toBe('no-store')
    expect(reply.headers['content-type']).toBe('application/json; charset=utf-8')
  })

  test('is 200 without Postgres', async () => {
    const { port, proxy } = await startBehindProxy()
    proxy.silence()
    expect((await live(port)).status).toBe(200)
  })

  test('is 200 while the process is overloaded, when orders are refused', async () => {
    const { port, logLines } = await startService()
    const eventLoopDelay = vi.spyOn(HISTOGRAM, 'mean', 'get').mockReturnValue(2_000_000_000) // ns
    onTestFinished(() => eventLoopDelay.mockRestore())
    const order = await until(async () => {
      const reply = await send(port)
      return reply.status !== 201 && reply
    })
    expect(order).toMatchObject({ status: 503, json: { code: 'overloaded' } })
    expect(await ready(port)).toMatchObject({ status: 503, json: { code: 'overloaded' } })
    expect((await live(port)).status).toBe(200)
    eventLoopDelay.mockRestore()
    await until(async () => (await send(port)).status === 201)
    expect(logLines.filter(({ level }) => Number(level) >= 40)).toEqual([])
  })
})

describe('GET /health/ready', () => {
  test('reports that Postgres is up and that there is no Redis', async () => {
    const { port } = await startService()
    const reply = await ready(port)
    expect(reply.status).toBe(200)
    expect(reply.json).toEqual({ status: 'ready', postgres: 'up', redis: 'none' })
    expect(reply.headers['cache-control']).toBe('no-store')
  })

  test.runIf(hasRedis)('reports that both stores are up', async () => {
    const { port } = await startService({ redis: true })
    const reply = await ready(port)
    expect(reply.status).toBe(200)
    expect(reply.json).toEqual({ status: 'ready', postgres: 'up', redis: 'up' })
  })

  test('is 503 while Postgres is gone, and 200 when it is back', async () => {
    const { port, proxy } = await startBehindProxy()
    expect((await ready(port)).status).toBe(200)
    proxy.silence()
    proxy.resetAll()
    await until(async () => (await ready(port)).status === 503)
    expect((await ready(port)).json).toEqual({
      status: 'unavailable',
      postgres: 'down',
      redis: 'none',
    })
    proxy.resume()
    await until(async () => (await ready(port)).status === 200)
  })

  test('is 503 while Postgres does not respond, before an order that waits for it fails', async () => {
    const { port, proxy } = await startBehindProxy()
    proxy.silence()
    let hasFailed = false
    const order = send(port).finally(() => {
      hasFailed = true
    })
    expect((await ready(port)).status).toBe(503)
    expect(hasFailed).toBe(false)
    await order
  })

  test('does not count for the rate limit, and is not logged', async () => {
    const { port, logLines } = await startService({ env: { RATE_LIMIT_MAX: '1' } })
    for (let i = 0; i < 5; i++) {
      const reply = await ready(port)
      expect(reply.status).toBe(200)
      expect(reply.headers['x-ratelimit-limit']).toBeUndefined()
    }
    expect((await send(port)).status).toBe(201)
    await until(() => logLines.some(({ route }) => route === '/orders'))
    expect(logLines.filter(({ msg }) => msg === 'request')).toHaveLength(1)
  })

  test('allows only GET and HEAD', async () => {
    const { port } = await startService()
    const reply = await send(port, { path: '/health/ready' })
    expect(reply.status).toBe(405)
    expect(reply.headers.allow).toBe('GET, HEAD')
  })
})

describe.runIf(redisServer)('while Redis does not respond', () => {
  async function start() {
    const server = await startPrivateRedis()
    onTestFinished(() => server.stop())
    const { database } = await createTestStores({ redis: false })
    return { ...(await startInstance({ database, redisSpace: { url: server.url } })), server }
  }
  const readState = async (port: number) => {
    const { status, json } = await ready(port)
    return { status, ...json, http: status }
  }

  test('GET /health/ready is 200 and reports degraded', async () => {
    const { port, server } = await start()
    await server.stop()
    await until(async () => (await readState(port)).redis === 'down')
    expect(await readState(port)).toEqual({
      http: 200,
      status: 'degraded',
      postgres: 'up',
      redis: 'down',
    })
  })

  test('GET /health/ready reports ready again when Redis is back, without any order', async () => {
    const { port, server } = await start()
    server.freeze()
    for (let i = 0; i < 10; i++) await send(port)
    await until(async () => (await readState(port)).status === 'degraded')
    server.thaw()
    await until(async () => (await readState(port)).status === 'ready')
  })

  test('GET /health/ready reports degraded while Redis is full, without any order', async () => {
    const { port, server } = await start()
    const admin = new Redis(server.url)
    onTestFinished(() => admin.disconnect())
    expect((await readState(port)).status).toBe('ready')
    await admin.config('SET', 'maxmemory', '1')
    await until(async () => (await readState(port)).status === 'degraded')
    await admin.config('SET', 'maxmemory', '0')
    await until(async () => (await readState(port)).status === 'ready')
  })

  test.each([
    ['scripts', '-evalsha', '-eval'],
    ['the keys of records', 'resetkeys', '~order-once:*'],
  ])('GET /health/ready reports degraded while Redis forbids %s', async (_name, ...rights) => {
    const { port, server } = await start()
    const admin = new Redis(server.url)
    onTestFinished(() => admin.disconnect())
    expect((await readState(port)).status).toBe('ready')
    await admin.call('ACL', 'SETUSER', 'default', ...rights)
    await until(async () => (await readState(port)).status === 'degraded')
    expect((await scrape(port)).value('order_once_redis_degraded')).toBe(1)
    await admin.call('ACL', 'SETUSER', 'default', '~*', '+@all')
    await until(async () => (await readState(port)).status === 'ready')
  })
})

describe('while the process shuts down', () => {
  test('/health/ready is 503 and /health/live is 200, on connections that are still open', async () => {
    const { url, isBlocking, unblock } = await blockInserts()
    const service = await startProcess({ DATABASE_URL: url })
    const connections = ['live', 'ready'].map((name) =>
      openSocket(service.port, `GET /health/${name} HTTP/1.1\r\nHost: 127.0.0.1\r\n`),
    )
    const order = send(service.port)
    await until(isBlocking)
    service.child.kill('SIGTERM')
    await until(() => service.stdout().includes('closing on SIGTERM'))
    for (const { socket } of connections) socket.write('\r\n')
    await until(() => connections.every(({ isClosed }) => isClosed()))
    const received = connections.map(({ responses }) => responses()[0])
    expect(received.map((response) => response?.status)).toEqual([200, 503])
    expect(JSON.parse(received[0]?.text ?? '')).toEqual({ status: 'live' })
    expect(JSON.parse(received[1]?.text ?? '')).toMatchObject({ code: 'shutting-down' })
    await unblock()
    expect((await order).status).toBe(201)
    expect(await service.ended).toBe(0)
  })
})
