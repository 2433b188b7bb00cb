import { pino } from 'pino'
import { describe, expect, onTestFinished, test } from 'vitest'
import { openRedis } from '../../src/storage/redis.ts'
import { type PrivateRedis, startPrivateRedis } from '../support/private-redis.ts'
import { hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

describe.runIf(hasRedis)('the Redis connection', () => {
  test('logs one line when Redis goes and one when it is back, whatever is asked meanwhile', async () => {
    const first = (await startPrivateRedis()) as PrivateRedis
    const { port } = new URL(first.url)
    const lines: string[] = []
    const log = pino({}, { write: (line) => void lines.push(JSON.parse(line).msg) })
    const redis = await openRedis(first.url, log)
    const ping = () => redis.ask(() => redis.client.ping())
    onTestFinished(() => redis.close())
    expect(await ping()).toBe('PONG')

    await first.stop()
    await until(() => lines.length === 1)
    for (let i = 0; i < 20; i++) await expect(ping()).rejects.toThrow()

    const second = (await startPrivateRedis(Number(port))) as PrivateRedis
    onTestFinished(() => second.stop())
    await until(() =>
      ping().then(
        () => true,
        () => false,
      ),
    )
    expect(lines).toEqual(['Redis does not answer; orders go on without it', 'Redis is back'])
  })
})
