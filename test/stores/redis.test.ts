import { pino } from 'pino'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { openRedis } from '../../src/stores/redis.ts'
import { redisServer, startPrivateRedis } from '../support/private-redis.ts'
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
  return { lines, ping, isUp, calls: () => calls }
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
    for (let i = 0; i < 5; i++) await expect(ping()).rejects.toThrow('Command timed out')
    const clock = vi.spyOn(Date, 'now').mockReturnValue(Date.now()) // no time to try again
    for (let i = 0; i < 20; i++) await expect(ping()).rejects.toThrow('circuit')
    clock.mockRestore()
    expect(calls()).toBe(5)
    expect(lines).toEqual([LOST])
    server.thaw()
    await until(isUp)
    expect(lines).toEqual([LOST, BACK])
  })
})
