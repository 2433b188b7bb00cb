import { describe, expect, onTestFinished, test } from 'vitest'
import { blockInserts } from '../support/blocked-inserts.ts'
import { get, type Reply, send } from '../support/client.ts'
import { redisServer, startPrivateRedis } from '../support/private-redis.ts'
import { startProcess } from '../support/process.ts'
import { openSocket } from '../support/raw-socket.ts'
import { createTestStores, startInstance, startService } from '../support/service.ts'
import { startProxy } from '../support/start-proxy.ts'
import { hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

const live = (port: number) => get(port, '/health/live')
const ready = (port: number) => get(port, '/health/ready')

/** An instance whose Postgres is behind a proxy. */
async function startBehindProxy() {
  const { database } = await createTestStores({ redis: false })
  const { proxy, url } = await startProxy(database.url)
  const stores = { database: { ...database, url }, redisSpace: undefined }
  return { ...(await startInstance(stores)), proxy }
}

describe('GET /health/live', () => {
  test('answers without a signature, and nobody may remember it', async () => {
    const { port } = await startService()
    const reply = await live(port)
    expect(reply).toMatchObject({ status: 200, json: { status: 'live' } })
    expect(reply.headers['cache-control']).toBe('no-store')
    expect(reply.headers['content-type']).toBe('application/json; charset=utf-8')
  })

  test('answers without Postgres, too', async () => {
    const { port, proxy } = await startBehindProxy()
    proxy.hush()
    expect((await live(port)).status).toBe(200)
  })

  test('answers while the process is overloaded, when orders are refused', async () => {
    const { port } = await startService()
    let answers: Reply[] = []
    await until(async () => {
      const end = performance.now() + 1_500 // longer than a turn of the event loop may take
      while (performance.now() < end);
      await new Promise(setImmediate) // the turn in which it is found out
      answers = await Promise.all([send(port), ready(port), live(port)])
      return answers[0]?.status === 503
    })
    expect(answers.map(({ status }) => status)).toEqual([503, 503, 200])
    expect(answers.map(({ json }) => json.code)).toEqual(['overloaded', 'overloaded', undefined])
  })
})

describe('GET /health/ready', () => {
  test('says that Postgres answers and that there is no Redis', async () => {
    const { port } = await startService()
    const reply = await ready(port)
    expect(reply.status).toBe(200)
    expect(reply.json).toEqual({ status: 'ready', postgres: 'up', redis: 'none' })
    expect(reply.headers['cache-control']).toBe('no-store')
  })

  test.runIf(hasRedis)('says that both stores answer', async () => {
    const { port } = await startService({ redis: true })
    const reply = await ready(port)
    expect(reply.status).toBe(200)
    expect(reply.json).toEqual({ status: 'ready', postgres: 'up', redis: 'up' })
  })

  test('is 503 while Postgres is gone, and 200 when it is back', async () => {
    const { port, proxy } = await startBehindProxy()
    expect((await ready(port)).status).toBe(200)
    proxy.hush()
    proxy.cutAll()
    await until(async () => (await ready(port)).status === 503)
    expect((await ready(port)).json).toEqual({
      status: 'unavailable',
      postgres: 'down',
      redis: 'none',
    })
    proxy.speak()
    await until(async () => (await ready(port)).status === 200)
  })

  test('answers in time though Postgres says nothing', async () => {
    const { port, proxy } = await startBehindProxy()
    proxy.hush()
    const beganAt = performance.now()
    expect((await ready(port)).status).toBe(503)
    expect(performance.now() - beganAt).toBeLessThan(3_000)
  })

  test('asks the stores once, however many ask at once', async () => {
    const { database } = await createTestStores({ redis: false })
    const { proxy, url } = await startProxy(database.url)
    const { port } = await startInstance({ database: { ...database, url }, redisSpace: undefined })
    let questions = 0
    proxy.tearsRequest = (bytes) => {
      if (bytes.includes('select 1')) questions++
      return false
    }
    const replies = await Promise.all(Array.from({ length: 50 }, () => ready(port)))
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]))
    expect(questions).toBe(1)
  })

  test('counts for no rate limit, and is not logged line by line', async () => {
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

  test('takes GET and HEAD alone', async () => {
    const { port } = await startService()
    const reply = await send(port, { path: '/health/ready' })
    expect(reply.status).toBe(405)
    expect(reply.headers.allow).toBe('GET, HEAD')
  })
})

describe.runIf(redisServer)('while Redis is gone', () => {
  async function start() {
    const server = await startPrivateRedis()
    onTestFinished(() => server.stop())
    const { database } = await createTestStores({ redis: false })
    const redisSpace = { url: server.url }
    return { ...(await startInstance({ database, redisSpace })), server }
  }
  const state = async (port: number) => {
    const { status, json } = await ready(port)
    return { status, ...json, http: status }
  }

  test('GET /health/ready is 200, and says that it is degraded', async () => {
    const { port, server } = await start()
    await server.stop()
    await until(async () => (await state(port)).redis === 'down')
    expect(await state(port)).toEqual({
      http: 200,
      status: 'degraded',
      postgres: 'up',
      redis: 'down',
    })
  })

  test('GET /health/ready finds it back by itself, though no order comes', async () => {
    const { port, server } = await start()
    server.freeze()
    for (let i = 0; i < 10; i++) await send(port)
    await until(async () => (await state(port)).status === 'degraded')
    server.thaw()
    await until(async () => (await state(port)).status === 'ready')
  })
})

describe('while the process shuts down', () => {
  test('/health/ready is 503 and /health/live is 200, on connections that are still open', async () => {
    const { url, isBlocking, unblock } = await blockInserts()
    const service = await startProcess({ DATABASE_URL: url })
    const connections = ['live', 'ready'].map((name) =>
      openSocket(service.port, `GET /health/${name} HTTP/1.1\r\nHost: a\r\n`),
    )
    const atWork = send(service.port)
    await until(isBlocking)
    service.child.kill('SIGTERM')
    await until(() => service.stdout().includes('closing on SIGTERM'))
    for (const { socket } of connections) socket.write('\r\n')
    await until(() => connections.every(({ isClosed }) => isClosed()))
    const answers = connections.map(({ answers }) => answers()[0])
    expect(answers.map((answer) => answer?.status)).toEqual([200, 503])
    expect(JSON.parse(answers[0]?.text ?? '')).toEqual({ status: 'live' })
    expect(JSON.parse(answers[1]?.text ?? '')).toMatchObject({ code: 'shutting-down' })
    await unblock()
    expect((await atWork).status).toBe(201)
    expect(await service.ended).toBe(0)
  })
})
