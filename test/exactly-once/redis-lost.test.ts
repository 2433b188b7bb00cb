import { Redis } from 'ioredis'
import { describe, expect, onTestFinished, test } from 'vitest'
import { newKey, ORDER, send, sendAll } from '../support/client.ts'
import { type PrivateRedis, redisServer, startPrivateRedis } from '../support/private-redis.ts'
import { createTestStores, startInstance } from '../support/service.ts'
import { until } from '../support/until.ts'

/** Ways in which Redis fails, and how each ends. */
const failures: {
  name: string
  fail: (server: PrivateRedis, admin: Redis) => unknown
  recover?: (server: PrivateRedis, admin: Redis) => unknown
}[] = [
  { name: 'is stopped', fail: (server) => server.stop() },
  { name: 'hangs', fail: (server) => server.freeze(), recover: (server) => server.thaw() },
  {
    name: 'is a read-only replica',
    fail: (_, admin) => admin.replicaof('127.0.0.1', 1),
    recover: (_, admin) => admin.replicaof('NO', 'ONE'),
  },
  {
    name: 'is full',
    fail: (_, admin) => admin.config('SET', 'maxmemory', '1'),
    recover: (_, admin) => admin.config('SET', 'maxmemory', '0'),
  },
  {
    name: 'refuses our commands',
    fail: (_, admin) => admin.call('ACL', 'SETUSER', 'default', '-set', '-evalsha', '-eval'),
    recover: (_, admin) => admin.call('ACL', 'SETUSER', 'default', '+@all'),
  },
]

describe.runIf(redisServer).each(failures)('while Redis $name', ({ fail, recover }) => {
  async function start(env: Record<string, string> = {}) {
    const server = await startPrivateRedis()
    const redis = new Redis(server.url, { maxRetriesPerRequest: null })
    redis.on('error', () => {})
    onTestFinished(async () => {
      redis.disconnect()
      await server.stop()
    })
    const { database } = await createTestStores({ redis: false })
    const stores = { database, redisSpace: { url: server.url } }
    const instances = [
      await startInstance(stores, { env }),
      await startInstance(stores, { env }),
    ] as const
    return {
      instances,
      rows: () => database.sql`select id from orders`,
      fail: () => fail(server, redis),
      recover: recover && (() => recover(server, redis)),
    }
  }

  test('orders are created once, repeats are replayed, and another body is refused', async () => {
    const { instances, rows, fail } = await start()
    const [one, other] = instances
    const before = newKey()
    const first = await send(one.port, { key: before })
    await fail()
    expect(await send(other.port, { key: before })).toMatchObject({ status: 201, text: first.text })

    const key = newKey()
    const replies = await sendAll(20, (i) => send(i % 2 ? one.port : other.port, { key }))
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([201]))
    expect(new Set(replies.map(({ text }) => text)).size).toBe(1)
    const reply = await send(one.port, { key, body: { ...ORDER, amount: 1 } })
    expect(reply.json.code).toBe('idempotency-key-reused')
    expect(await rows()).toHaveLength(2)
  })

  test('each process has a rate limit of its own', async () => {
    const { instances, fail } = await start({ RATE_LIMIT_MAX: '3' })
    await fail()
    for (const { port } of instances) {
      const statuses = []
      for (let i = 0; i < 4; i++) statuses.push((await send(port)).status)
      expect(statuses).toEqual([201, 201, 201, 429])
    }
  })

  test('one line says that it does not respond, and one that it is back', async () => {
    const { instances, fail, recover } = await start()
    const [{ port, logLines }] = instances
    const findLines = () =>
      logLines.map(({ msg }) => msg).filter((msg) => String(msg).includes('Redis '))
    await fail()
    for (let i = 0; i < 10; i++) expect((await send(port)).status).toBe(201)
    const expected = [
      'idempotency records are kept in Redis',
      'Redis does not respond; orders go on without it',
    ]
    expect(findLines()).toEqual(expected.slice(-findLines().length))
    if (!recover) return
    await recover()
    await until(async () => {
      await send(port)
      return findLines().at(-1) === 'Redis is back'
    })
    const key = newKey()
    await send(port, { key })
    await until(async () => {
      await send(port, { key })
      return logLines.at(-1)?.idempotency === 'replayed_cache'
    })
  })
})
