import { Redis } from 'ioredis'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { openRedis } from '../../src/stores/redis.ts'
import { redisServer, startPrivateRedis } from '../support/private-redis.ts'
import { TcpProxy } from '../support/tcp-proxy.ts'
import { until } from '../support/until.ts'

const LOST = 'Redis does not respond; orders go on without it'
const BACK = 'Redis is back'

async function open(url: string) {
  const lines: string[] = []
  const log = pino({}, { write: (line) => void lines.push(JSON.parse(line).msg) })
  const redis = await openRedis(url, log)
  onTestFinished(() => redis.close())
  let calls = 0
  const ping = () =>
    redis.runCall(() => {
      calls++
      return redis.client.ping()
    })
  const isUp = () =>
    ping().then(
      () => true,
      () => false,
    )
  return { redis, lines, ping, isUp, calls: () => calls }
}

/** Starts a Redis. @returns a proxy in front of it */
async function startProxiedRedis(): Promise<TcpProxy> {
  const server = await startPrivateRedis()
  const proxy = await TcpProxy.start(Number(new URL(server.url).port))
  onTestFinished(async () => {
    await proxy.close()
    await server.stop()
  })
  return proxy
}

describe.runIf(redisServer)('the connection to Redis', () => {
  test('logs one line when Redis is lost and one when it is back, however many calls there are', async () => {
    const first = await startPrivateRedis()
    const { lines, ping, isUp } = await open(first.url)
    expect(await ping()).toBe('PONG')

    await first.stop()
    await until(() => lines.length === 1)
    for (let i = 0; i < 20; i++) expect(await isUp()).toBe(false)

    const second = await startPrivateRedis(Number(new URL(first.url).port))
    onTestFinished(() => second.stop())
    await until(isUp)
    expect(lines).toEqual([LOST, BACK])
  })

  test('may be opened before Redis is started', async () => {
    const port = await freePort()
    const { lines, isUp } = await open(`redis://127.0.0.1:${port}`)
    expect(await isUp()).toBe(false)
    const redis = await startPrivateRedis(port)
    onTestFinished(() => redis.stop())
    await until(isUp)
    expect(lines).toEqual([LOST, BACK])
  })

  test('sends no more commands after five without a response, until it tries again by itself', async () => {
    const server = await startPrivateRedis()
    onTestFinished(() => server.stop())
    const { lines, ping, isUp, calls } = await open(server.url)
    server.freeze()
    for (let i = 0; i < 5; i++) await expect(ping()).rejects.toThrow('Redis did not respond')
    const clock = vi.spyOn(performance, 'now').mockReturnValue(performance.now()) // no time to try again
    for (let i = 0; i < 20; i++) await expect(ping()).rejects.toThrow('circuit')
    clock.mockRestore()
    expect(calls()).toBe(5)
    expect(lines).toEqual([LOST])
    server.thaw()
    await until(isUp)
    expect(lines).toEqual([LOST, BACK])
  })
  test('is replaced when it does not respond, though new connections do', async () => {
    const proxy = await startProxiedRedis()
    const { lines, isUp } = await open(`redis://127.0.0.1:${proxy.port}`)
    expect(await isUp()).toBe(true)
    proxy.silencePresent()
    await until(isUp)
    expect(lines).toEqual([LOST, BACK])
  })

  test('is replaced when its server was demoted to a replica', async () => {
    const server = await startPrivateRedis()
    onTestFinished(() => server.stop())
    const { redis, isUp } = await open(server.url)
    const admin = new Redis(server.url)
    onTestFinished(() => admin.disconnect())
    const before = await redis.client.client('ID')
    await admin.replicaof('127.0.0.1', 1)
    await expect(redis.runCall(() => redis.client.set('key', 'value'))).rejects.toThrow('READONLY')
    await until(isUp)
    expect(await redis.client.client('ID')).not.toBe(before)
  })

  test('never goes on in database 0 when Redis refuses the database of the URL', async () => {
    const server = await startPrivateRedis()
    onTestFinished(() => server.stop())
    const { redis, lines } = await open(`${server.url}/20`)
    let attempts = 0
    await until(async () => {
      await redis.runCall(() => redis.client.set('key', 'value')).catch(() => attempts++)
      return attempts >= 20
    })
    expect(lines).toEqual([LOST])
    const admin = new Redis(server.url)
    onTestFinished(() => admin.disconnect())
    expect(await admin.get('key')).toBeNull()
  })

  test('does not make requests wait when each reply takes more than 100 ms', async () => {
    const proxy = await startProxiedRedis()
    const { lines, ping } = await open(`redis://127.0.0.1:${proxy.port}`)
    proxy.latencyMs = 75 // in each direction
    await until(() =>
      ping().then(
        () => false,
        (error: Error) => error.message.includes('circuit'),
      ),
    )
    expect(lines).toEqual([LOST])
  })

  test('has at most 1000 calls in flight', async () => {
    const server = await startPrivateRedis()
    onTestFinished(() => server.stop())
    const { redis } = await open(server.url)
    server.freeze()
    const calls = Array.from({ length: 1_001 }, () => redis.runCall(() => redis.client.ping()))
    await expect(calls.at(-1)).rejects.toThrow('too many calls')
    server.thaw()
    await Promise.allSettled(calls)
  })
})
