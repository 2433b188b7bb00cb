import { pino } from 'pino'
import { describe, expect, onTestFinished, test } from 'vitest'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { openRedis } from '../../src/stores/redis.ts'
import { redisServer, startPrivateRedis } from '../support/private-redis.ts'
import { until } from '../support/until.ts'

const GONE = 'Redis does not respond; orders go on without it'
const BACK = 'Redis is back'

async function open(url: string) {
  const lines: string[] = []
  const log = pino({}, { write: (line) => void lines.push(JSON.parse(line).msg) })
  const redis = await openRedis(url, log)
  onTestFinished(() => redis.close())
  const ping = () => redis.runCall(() => redis.client.ping())
  const answers = () =>
    ping().then(
      () => true,
      () => false,
    )
  return { lines, redis, ping, answers }
}

describe.runIf(redisServer)('the Redis connection', () => {
  test('logs one line when Redis goes and one when it is back, whatever is asked meanwhile', async () => {
    const first = await startPrivateRedis()
    const { lines, ping, answers } = await open(first.url)
    expect(await ping()).toBe('PONG')

    await first.stop()
    await until(() => lines.length === 1)
    for (let i = 0; i < 20; i++) expect(await answers()).toBe(false)

    const second = await startPrivateRedis(Number(new URL(first.url).port))
    onTestFinished(() => second.stop())
    await until(answers)
    expect(lines).toEqual([GONE, BACK])
  })

  test('may be opened before there is a Redis', async () => {
    const port = await freePort()
    const { lines, answers } = await open(`redis://127.0.0.1:${port}`)
    expect(await answers()).toBe(false)
    const redis = await startPrivateRedis(port)
    onTestFinished(() => redis.stop())
    await until(answers)
    expect(lines).toEqual([GONE, BACK])
  })

  test('leaves a Redis alone that hangs, and comes back to it by itself', async () => {
    const server = await startPrivateRedis()
    onTestFinished(() => server.stop())
    const { lines, redis, ping, answers } = await open(server.url)
    server.freeze()
    let asked = 0
    const ask = () =>
      redis.runCall(() => {
        asked++
        return redis.client.ping()
      })
    for (let i = 0; i < 5; i++) await expect(ask()).rejects.toThrow('Command timed out')
    for (let i = 0; i < 20; i++) await expect(ask()).rejects.toThrow('circuit')
    expect(asked).toBe(5)
    expect(lines).toEqual([GONE])
    server.thaw()
    await until(answers)
    expect(await ping()).toBe('PONG')
    expect(lines).toEqual([GONE, BACK])
  })
})
