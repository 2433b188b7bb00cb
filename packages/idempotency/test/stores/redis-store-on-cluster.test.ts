import { Cluster } from 'ioredis'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { redisServer } from '../../../../test/support/private-redis.ts'
import { findKeys, startRedisCluster } from '../../../../test/support/redis-cluster.ts'
import { until } from '../../../../test/support/until.ts'
import { createRedisStore } from '../../src/stores/redis-store.ts'
import { createRedisWatcher } from '../../src/stores/redis-watcher.ts'

const OPTIONS = { leaseMs: 600_000, ttlMs: 86_400_000 }

async function start(options: { enableAutoPipelining?: boolean } = {}) {
  const system = await startRedisCluster()
  const nodes = system.nodes.map(({ port }) => ({ host: '127.0.0.1', port }))
  const redis = new Cluster(nodes, { ...options, redisOptions: { connectionName: 'under-test' } })
  redis.on('error', () => {})
  onTestFinished(async () => {
    redis.disconnect()
    await system.stop()
  })
  return { system, redis }
}

/** The nodes at which a client of the test subscribes. */
async function findSubscribedNodes({ system }: Awaited<ReturnType<typeof start>>, channel: string) {
  const found = []
  for (const node of system.nodes) {
    const reply = await node.client.pubsub('NUMSUB', channel).catch(() => [channel, 0])
    if (Number(reply[1]) > 0) found.push(node)
  }
  return found
}

describe.runIf(redisServer)('the Redis store on a Redis Cluster', () => {
  test.each([
    { name: 'a client', enableAutoPipelining: false },
    { name: 'a client with automatic pipelines', enableAutoPipelining: true },
  ])('claims, renews, completes and releases while slots move, with $name', async (options) => {
    const { system, redis } = await start(options)
    const store = createRedisStore(redis, OPTIONS)
    const response = { statusCode: 201, headers: {}, body: 'response' }
    const keysOfSlots = findKeys('idemp:moved-', 20).map((name) => name.slice('idemp:'.length))
    let runs = 0

    /** Uses keys of the slot that moves and of many others, all at the same moment. */
    async function useKeys(slot?: number): Promise<void> {
      const run = runs++
      const keys = Array.from({ length: 30 }, (_, i) => `${run}-${i}`)
      if (slot !== undefined) keys.push(keysOfSlots[slot] as string)
      const token = (key: string) => `token-${key}`
      const claims = await Promise.all(keys.map((key) => store.claim(key, 'v1:', token(key))))
      expect(claims).toEqual(keys.map(() => ({ state: 'new' })))
      for (const key of keys.slice(-2)) expect(await store.renew(key, 'v1:', token(key))).toBe(true)
      await Promise.all(
        keys.map((key) => store.complete(key, token(key), { fingerprint: 'v1:', response })),
      )
      const repeats = await Promise.all(keys.map((key) => store.claim(key, 'v1:', 'other')))
      for (const repeat of repeats) expect(repeat).toMatchObject({ state: 'completed', response })
    }

    await until(() => redis.status === 'ready')
    let isMoving = true
    const load = (async () => {
      while (isMoving) await useKeys()
    })()
    await system.moveSlots(0, keysOfSlots.length - 1, useKeys).finally(() => {
      isMoving = false
    })
    await load
    await useKeys()
    await store.claim('released', 'v1:', 'token')
    await store.release('released', 'token')
    expect(await store.claim('released', 'v1:', 'token')).toEqual({ state: 'new' })
  })
})

describe.runIf(redisServer)('a watcher on a Redis Cluster', () => {
  test('is notified of what is published at any node, and goes to another node when its own is lost', async () => {
    const started = await start()
    const { system, redis } = started
    await until(() => redis.status === 'ready')
    const watcher = createRedisWatcher(redis)
    const onChange = vi.fn()
    await watcher.watch('key', onChange)
    for (const { client } of system.nodes.slice(0, 3)) {
      onChange.mockClear() // of the first connection, too
      await client.publish('key', 'changed')
      await until(() => onChange.mock.calls.length > 0)
    }

    const [own] = await findSubscribedNodes(started, 'key')
    onChange.mockClear()
    own?.client.disconnect()
    await own?.kill()
    await until(() => onChange.mock.calls.length > 0) // messages may have been missed
    const others = system.nodes.filter((node) => node !== own)
    await until(async () => {
      onChange.mockClear()
      for (const { client } of others) await client.publish('key', 'changed').catch(() => {})
      return onChange.mock.calls.length > 0
    })
  })

  test('fails while no node responds, and closes its connection with the given one', async () => {
    const started = await start()
    const { system, redis } = started
    const watcher = createRedisWatcher(redis)
    await until(() => redis.status === 'ready')
    await watcher.watch('key', () => {})
    redis.disconnect()
    await until(async () => (await findSubscribedNodes(started, 'key')).length === 0)
    const other = new Cluster([{ host: '127.0.0.1', port: 1 }], { lazyConnect: true })
    other.on('error', () => {})
    onTestFinished(() => other.disconnect())
    await expect(createRedisWatcher(other).watch('key', () => {})).rejects.toThrow()
    expect(system.nodes).toHaveLength(6)
  })
})
