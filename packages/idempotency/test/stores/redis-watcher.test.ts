import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { freePort } from '../../../../src/stores/embedded/free-port.ts'
import { emptyRedisSpace, hasRedis } from '../../../../test/support/stores.ts'
import { TcpProxy } from '../../../../test/support/tcp-proxy.ts'
import { until } from '../../../../test/support/until.ts'
import { createRedisWatcher } from '../../src/stores/redis-watcher.ts'

describe.runIf(hasRedis)('a watcher of Redis keys', () => {
  /** A watcher on a connection of its own, and what Redis reports about its subscriptions. */
  async function createWatcher() {
    const { url, redis: observer } = await emptyRedisSpace()
    const connectionName = `watcher-${randomUUID()}`
    const prefix = 'prefix:'
    const redis = new Redis(url, { connectionName, keyPrefix: prefix })
    onTestFinished(() => redis.disconnect())
    return {
      redis,
      watcher: createRedisWatcher(redis),
      publish: (name: string) => observer.publish(prefix + name, 'changed'),
      countSubscribers: async (name: string) =>
        (await observer.pubsub('NUMSUB', prefix + name))[1] as number,
      /** @returns the ids of its connections */
      listConnections: async () => {
        const clients = `${await observer.client('LIST')}`.split('\n')
        const own = clients.filter((line) => line.includes(` name=${connectionName} `))
        return own.map((line) => ({
          id: Number(/^id=(\d+)/.exec(line)?.[1]),
          isSubscriber: line.includes(' cmd=subscribe '),
        }))
      },
      kill: (id: number) => observer.client('KILL', 'ID', id),
    }
  }

  test('notifies all listeners of a key of its changes, and no others', async () => {
    const { watcher, publish } = await createWatcher()
    const [first, second, other] = [vi.fn(), vi.fn(), vi.fn()]
    await watcher.watch('key', first)
    await watcher.watch('key', second)
    await watcher.watch('other', other)
    for (const listener of [first, second, other]) listener.mockClear() // of the first connect
    await publish('key')
    await until(() => first.mock.calls.length === 1 && second.mock.calls.length === 1)
    expect(other).not.toHaveBeenCalled()
  })

  test('unsubscribes when the last listener of a key has stopped', async () => {
    const { watcher, countSubscribers } = await createWatcher()
    const stops = [await watcher.watch('key', () => {}), await watcher.watch('key', () => {})]
    expect(await countSubscribers('key')).toBe(1)
    stops[0]?.()
    expect(await countSubscribers('key')).toBe(1)
    stops[1]?.()
    await until(async () => (await countSubscribers('key')) === 0)
    await watcher.watch('key', () => {})
    expect(await countSubscribers('key')).toBe(1)
  })

  test('notifies when the key expires, also if it was extended', async () => {
    const { redis, watcher } = await createWatcher()
    let isExpired = false
    await redis.set('key', 'a claim', 'PX', 100)
    await watcher.watch('key', async () => {
      isExpired ||= (await redis.exists('key')) === 0
    })
    await redis.pexpire('key', 300)
    await until(() => isExpired)
  })

  test('subscribes again after a lost connection, and notifies, since messages may be lost', async () => {
    const { watcher, publish, countSubscribers, listConnections, kill } = await createWatcher()
    const onChange = vi.fn()
    await watcher.watch('key', onChange)
    onChange.mockClear()
    const subscriber = (await listConnections()).find(({ isSubscriber }) => isSubscriber)
    await kill(subscriber?.id ?? 0)
    await until(() => onChange.mock.calls.length === 1)
    await until(async () => (await countSubscribers('key')) === 1)
    await publish('key')
    await until(() => onChange.mock.calls.length === 2)
  })

  test('closes its connection with the given one', async () => {
    const { redis, watcher, listConnections } = await createWatcher()
    await watcher.watch('key', () => {})
    expect(await listConnections()).toHaveLength(2)
    redis.disconnect()
    await until(async () => (await listConnections()).length === 0)
  })

  test('notifies its listeners after its connection was silent: messages may have been missed', async () => {
    const { url, redis: observer } = await emptyRedisSpace()
    const proxy = await TcpProxy.start(Number(new URL(url).port))
    const redis = new Redis({ port: proxy.port })
    onTestFinished(async () => {
      redis.disconnect()
      await proxy.close()
    })
    const onChange = vi.fn()
    await createRedisWatcher(redis).watch('key', onChange)
    proxy.silencePresent()
    await observer.publish('key', 'changed')
    await until(() => onChange.mock.calls.length > 0)
  })
})

test('a watcher of Redis keys fails while Redis does not respond', async () => {
  const redis = new Redis(await freePort(), '127.0.0.1', { lazyConnect: true })
  redis.on('error', () => {})
  onTestFinished(() => redis.disconnect())
  const watcher = createRedisWatcher(redis)
  await expect(watcher.watch('key', () => {})).rejects.toThrow('Redis does not respond')
  await expect(watcher.watch('key', () => {})).rejects.toThrow('Redis does not respond')
})
