import { readFile } from 'node:fs/promises'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { IdempotencyStore } from '../../packages/idempotency/src/stores/store.ts'
import { cleanUp } from '../../src/clean-up.ts'
import { reconcile } from '../../src/reconcile.ts'
import { checkRedis } from '../../src/stores/check-redis.ts'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { openRedis } from '../../src/stores/redis.ts'
import { get, newKey, type Reply, send, sendAll } from '../support/client.ts'
import { redisServer, startPrivateRedis } from '../support/private-redis.ts'
import { runBinary } from '../support/process.ts'
import {
  type ClusterNode,
  findKeys,
  type RedisCluster,
  startRedisCluster,
} from '../support/redis-cluster.ts'
import { createTestStores, startInstance } from '../support/service.ts'
import { until } from '../support/until.ts'

async function start(config?: string[]): Promise<RedisCluster> {
  const cluster = await startRedisCluster(config)
  onTestFinished(() => cluster.stop())
  return cluster
}

/** Checks a URL. @returns the warnings */
async function check(url: string): Promise<string[]> {
  const warnings: string[] = []
  await checkRedis(url, pino({}, { write: (line) => void warnings.push(JSON.parse(line).msg) }))
  return warnings
}

/** Starts two instances on a cluster. */
async function startInstances(url: string, env: Record<string, string> = {}) {
  const { database } = await createTestStores({ redis: false })
  const stores = { database, redisSpace: { url } }
  const errors: unknown[] = []
  const wrapIdempotencyStore = (store: IdempotencyStore) => recordErrors(store, errors)
  const instances = [
    await startInstance(stores, { env, wrapIdempotencyStore }),
    await startInstance(stores, { env, wrapIdempotencyStore }),
  ] as const
  const [one, other] = instances
  return {
    stores,
    one,
    other,
    /** what the stores of both have thrown */
    errors,
    isUp: async () => {
      for (const { port } of instances) {
        if ((await get(port, '/health/ready')).json.redis !== 'up') return false
      }
      return true
    },
    countOrders: async () => (await database.sql`select id from orders`).length,
  }
}

/** On a busy machine a call may take too long; in a cluster, none may be refused. */
const isTimeout = (error: unknown) =>
  /did not respond|timed out|circuit|Connection is closed/.test(`${error}`)

/** Calls until the call does not take too long. */
const callInTime = <T>(call: () => Promise<T>) =>
  until(() =>
    call().catch((error) => {
      if (!isTimeout(error)) throw error
    }),
  )

/** Wraps the methods of a store. */
function recordErrors(store: IdempotencyStore, errors: unknown[]): IdempotencyStore {
  const record = (error: unknown) => {
    errors.push(error)
    throw error
  }
  return {
    ...store,
    claim: async (...args) => Promise.resolve(store.claim(...args)).catch(record),
    renew: (...args) => store.renew(...args).catch(record),
    complete: (...args) => store.complete(...args).catch(record),
    release: (...args) => store.release(...args).catch(record),
  }
}

/** Sends an order, again while the service is overloaded, as it is on a busy machine. */
async function sendInTime(port: number, key: string): Promise<Reply> {
  return until(async () => {
    const reply = await send(port, { key })
    return reply.status !== 503 && reply
  })
}

/** Sends new orders to one instance and their repeats to the other one. */
async function sendWithRepeats(
  { one, other }: Awaited<ReturnType<typeof startInstances>>,
  count: number,
) {
  const keys = Array.from({ length: count }, newKey)
  const first = await sendAll(count, (i) => sendInTime(one.port, keys[i] as string))
  const repeats = await sendAll(count, (i) => sendInTime(other.port, keys[i] as string))
  for (const [i, { status, text }] of first.entries()) {
    expect(status).toBe(201)
    expect(repeats[i]).toMatchObject({ status: 201, text })
  }
}

describe.runIf(redisServer)('a Redis Cluster of six', () => {
  test('is read as a whole by the reconciliation: lost orders of all shards are restored', async () => {
    const COUNT = 60
    const cluster = await start()
    const { stores, one, countOrders } = await startInstances(cluster.url)
    const { url, sql } = stores.database
    const target = { databaseUrl: url, databaseId: one.databaseId }
    const keys = Array.from({ length: COUNT }, newKey)
    await until(async () => {
      // A repeat stores a response again: on a busy machine, a call may take too long.
      await sendAll(COUNT, (i) => sendInTime(one.port, keys[i] as string))
      return (await reconcile(target, cluster.url, { apply: false })).remembered === COUNT
    })
    await sql`delete from orders`
    const report = await reconcile(target, cluster.url, { apply: true })
    expect(report).toMatchObject({ remembered: COUNT, missing: COUNT, restored: COUNT })
    expect(await countOrders()).toBe(COUNT)
  })

  test('is not reported as complete by order-once reconcile while a shard does not respond', async () => {
    // The other shards go on: what they have must not pass for all of it.
    const cluster = await start(['cluster-require-full-coverage no'])
    const { stores, one } = await startInstances(cluster.url)
    await sendAll(30, () => sendInTime(one.port, newKey()))
    const env = { DATABASE_URL: stores.database.url, REDIS_URL: cluster.url }
    expect(await runBinary(['reconcile'], env)).toMatchObject({ code: 0, stderr: '' })
    const failsInOneLine = async () => {
      expect(await runBinary(['reconcile', '--apply'], env)).toEqual({
        code: 1,
        stdout: '',
        stderr: expect.stringMatching(
          /^the reconciliation did not end: not all of Redis could be read: .+\n$/,
        ),
      })
    }
    const shard = [cluster.nodes[1], cluster.nodes[4]] as ClusterNode[]
    for (const node of shard) node.freeze()
    await failsInOneLine()
    const { client } = cluster.nodes[0] as ClusterNode
    await until(async () => /cluster_slots_fail:[1-9]/.test(`${await client.cluster('INFO')}`))
    await failsInOneLine()
    for (const node of shard) await node.kill()
    await failsInOneLine()
  })

  test('has claims, responses and counters in all shards, without a failed call', async () => {
    const cluster = await start()
    expect(await check(cluster.url)).toEqual([])
    const service = await startInstances(cluster.url)
    await until(async () => {
      service.errors.length = 0
      await sendWithRepeats(service, 300)
      return service.errors.length === 0
    })
    await until(service.isUp)
    for (const { client } of cluster.nodes.slice(0, 3)) {
      const names = await client.keys('idemp:key-*')
      expect(names.length).toBeGreaterThan(50)
    }
  })

  test('is left without a warning when the service closes', async () => {
    const cluster = await start()
    const { one } = await startInstances(cluster.url)
    expect((await send(one.port)).status).toBe(201)
    await until(async () => (await get(one.port, '/health/ready')).json.redis === 'up')
    one.logLines.length = 0
    await one.app.close()
    expect(one.logLines.filter(({ msg }) => `${msg}`.includes('Redis'))).toEqual([])
  })

  test('has no failed call while slots move, and keeps responses and counters', async () => {
    const keys = findKeys('idemp:moved-', 40).map((name) => name.slice('idemp:'.length))
    const cluster = await start()
    const service = await startInstances(cluster.url, { IDEMPOTENCY_LEASE_SECONDS: '600' })
    const store = service.one.app.idempotencyStore
    const claim = (key = '', token = 'token') =>
      callInTime(async () => store.claim(key, 'v1:', token))
    let isMoving = true
    const load = (async () => {
      while (isMoving) await sendWithRepeats(service, 20)
    })()
    const move = cluster.moveSlots(0, keys.length - 1, async (slot) => {
      // A key that is not there yet is refused with ASK, and after the move with MOVED.
      expect(await claim(keys[slot])).toEqual({ state: 'new' })
      const renew = () => store.renew(keys[slot] ?? '', 'v1:', 'token')
      expect(await callInTime(renew)).toBe(true)
    })
    await move.finally(() => {
      isMoving = false
    })
    await load
    for (const key of keys)
      expect(await claim(key, 'another')).toMatchObject({ state: 'in_flight' })
    expect(service.errors.filter((error) => !isTimeout(error))).toEqual([])
    await until(service.isUp)
  })

  test('creates each order once while a shard fails over, and is used without a restart after it', async () => {
    const cluster = await start()
    const service = await startInstances(cluster.url)
    await sendWithRepeats(service, 60)
    const lost = cluster.nodes[0] as ClusterNode
    const replica = cluster.nodes[3] as ClusterNode
    await lost.kill()
    let sent = 60
    await until(async () => {
      await sendWithRepeats(service, 6)
      sent += 6
      return `${await replica.client.info('replication')}`.includes('role:master')
    })
    await until(service.isUp)
    expect(await service.countOrders()).toBe(sent)
    await until(async () => {
      service.errors.length = 0
      await sendWithRepeats(service, 60)
      return service.errors.length === 0
    })
    expect((await replica.client.keys('idemp:key-*')).length).toBeGreaterThan(0)
  })

  test('goes on without Redis while a shard does not respond, and uses it again after the failover', async () => {
    const cluster = await start()
    const service = await startInstances(cluster.url)
    await sendWithRepeats(service, 60)
    const frozen = cluster.nodes[1] as ClusterNode
    frozen.freeze()
    await until(async () => {
      await sendWithRepeats(service, 6)
      return !(await service.isUp())
    })
    await until(service.isUp, 60_000)
    frozen.thaw()
    await sendWithRepeats(service, 60)
    await until(service.isUp)
  })

  test('reports degraded while one shard of it is full, without any order', async () => {
    const cluster = await start()
    const service = await startInstances(cluster.url)
    expect(await service.isUp()).toBe(true)
    for (const { client } of cluster.nodes.slice(0, 3)) {
      await client.config('SET', 'maxmemory', '1')
      await until(async () => !(await service.isUp()))
      await client.config('SET', 'maxmemory', '0')
      await until(service.isUp)
    }
  })

  test('shares one rate limit, and notifies duplicates that wait, whichever node is listened to', async () => {
    const cluster = await start()
    const service = await startInstances(cluster.url, {
      RATE_LIMIT_MAX: '12',
      RATE_LIMIT_WINDOW_SECONDS: '3600',
    })
    const store = service.one.app.idempotencyStore
    for (let i = 0; i < 5; i++) {
      const key = newKey()
      await store.claim(key, 'v1:', 'token')
      const notified = vi.fn()
      const stop = await service.other.app.idempotencyStore.watch?.(key, notified)
      notified.mockClear() // of the first connection
      await store.release(key, 'token')
      await until(() => notified.mock.calls.length > 0)
      stop?.()
    }
    const statuses = []
    for (let i = 0; i < 14; i++) {
      statuses.push((await send(i % 2 ? service.one.port : service.other.port)).status)
    }
    expect(statuses).toEqual([...Array(12).fill(201), 429, 429])
  })

  test('loses the responses of released keys with the clean-up', async () => {
    const cluster = await start()
    const service = await startInstances(cluster.url)
    await sendWithRepeats(service, 30)
    const countRecords = async () => {
      const lists = await Promise.all(
        cluster.nodes.slice(0, 3).map(({ client }) => client.keys('idemp:key-*')),
      )
      return lists.flat().length
    }
    await until(async () => (await countRecords()) === 30)
    const { database, redisSpace } = service.stores
    await database.sql`update orders set created_at = created_at - interval '2 days'`
    const urls = { databaseUrl: database.url, redisUrl: redisSpace.url }
    expect(await cleanUp(urls, { keyRetentionDays: 1 })).toMatchObject({ releasedKeys: 30 })
    expect(await countRecords()).toBe(0)
  })

  test('is used with the documented rights of its user, and nothing is refused to it', async () => {
    const page = await readFile(new URL('../../docs/operations.md', import.meta.url), 'utf8')
    const [, rules = ''] = /^ACL SETUSER order-once (.+)$/m.exec(page) ?? []
    const [, more = ''] = /^ACL SETUSER order-once (\+cluster.+)$/m.exec(page) ?? []
    const cluster = await start([`user order-once ${rules.replace('PASSWORD', 'secret')} ${more}`])
    const url = cluster.url.replace('//', '//order-once:secret@')
    expect(await check(url)).toEqual([])
    const service = await startInstances(url)
    await cluster.moveSlots(0, 9)
    await cluster.promote(cluster.nodes[3] as ClusterNode)
    await sendWithRepeats(service, 100)
    await until(service.isUp)
    for (const { client } of cluster.nodes) expect(await client.call('ACL', 'LOG')).toEqual([])
  })
})

describe.runIf(redisServer)('the check of a REDIS_URL with a cluster', () => {
  test('refuses a URL of another kind, and warns while no node responds', async () => {
    const { nodes, url } = await start()
    const stopsWith = (message: RegExp) =>
      expect.objectContaining({ name: 'StartError', message: expect.stringMatching(message) })
    await expect(check(`redis://127.0.0.1:${nodes[0]?.port}`)).rejects.toEqual(
      stopsWith(/is in the mode cluster: begin the URL with redis\+cluster:\/\/$/),
    )
    await expect(check(url.replace('//', '//nobody:wrong@'))).rejects.toEqual(
      stopsWith(/^REDIS_URL: Redis at \S+ cannot be used: WRONGPASS/),
    )
    const single = await startPrivateRedis()
    onTestFinished(() => single.stop())
    await expect(check(single.url.replace('redis:', 'redis+cluster:'))).rejects.toEqual(
      stopsWith(/is in the mode standalone: begin the URL with redis:\/\/$/),
    )
    expect(await check(`redis+cluster://127.0.0.1:${await freePort()}`)).toEqual([
      expect.stringMatching(/^REDIS_URL: Redis at \S+ does not respond \(.*ECONNREFUSED/),
    ])
  })

  test('the connection is opened while no node responds, and each call fails at once', async () => {
    const lines: string[] = []
    const log = pino({}, { write: (line) => void lines.push(JSON.parse(line).msg) })
    const redis = await openRedis(`redis+cluster://127.0.0.1:${await freePort()}`, log)
    await expect(redis.runCall(() => redis.client.set('key', 'value'))).rejects.toThrow()
    expect(lines).toEqual(['Redis does not respond; orders go on without it'])
    await redis.close()
  })
})
