import { Redis } from 'ioredis'
import { describe, expect, onTestFinished, test } from 'vitest'
import { newKey, ORDER, send, sendAll } from '../support/client.ts'
import { type PrivateRedis, redisServer, startPrivateRedis } from '../support/private-redis.ts'
import { createTestStores, startInstance } from '../support/service.ts'
import { until } from '../support/until.ts'

/** Ways in which a Redis is lost, and how each ends. */
const losses: {
  name: string
  lose: (server: PrivateRedis, admin: Redis) => unknown
  heal?: (server: PrivateRedis, admin: Redis) => unknown
}[] = [
  { name: 'was killed', lose: (server) => server.stop() },
  { name: 'hangs', lose: (server) => server.freeze(), heal: (server) => server.thaw() },
  {
    name: 'is a read-only replica',
    lose: (_, admin) => admin.replicaof('127.0.0.1', 1),
    heal: (_, admin) => admin.replicaof('NO', 'ONE'),
  },
  {
    name: 'is full',
    lose: (_, admin) => admin.config('SET', 'maxmemory', '1'),
    heal: (_, admin) => admin.config('SET', 'maxmemory', '0'),
  },
  {
    name: 'refuses our commands',
    lose: (_, admin) => admin.call('ACL', 'SETUSER', 'default', '-set', '-evalsha', '-eval'),
    heal: (_, admin) => admin.call('ACL', 'SETUSER', 'default', '+@all'),
  },
]

describe.runIf(redisServer).each(losses)('while Redis $name', ({ lose, heal }) => {
  async function start(env: Record<string, string> = {}) {
    const server = await startPrivateRedis()
    const redis = new Redis(server.url, { maxRetriesPerRequest: null })
    redis.on('error', () => {})
    onTestFinished(async () => {
      redis.disconnect()
      await server.stop()
    })
    const { database } = await createTestStores({ redis: false })
    const redisSpace = { url: server.url, redis, flush: async () => {} }
    const instances = [
      await startInstance({ database, redisSpace }, { env }),
      await startInstance({ database, redisSpace }, { env }),
    ] as const
    return {
      instances,
      rows: () => database.sql`select id from orders`,
      lose: () => lose(server, redis),
      heal: heal && (() => heal(server, redis)),
    }
  }

  test('orders are made, once, repeats get their bytes, and another body is refused', async () => {
    const { instances, rows, lose } = await start()
    const [one, other] = instances
    const before = newKey()
    const first = await send(one.port, { key: before })
    await lose()
    expect(await send(other.port, { key: before })).toMatchObject({ status: 201, text: first.text })

    const key = newKey()
    const replies = await sendAll(20, (i) => send(i % 2 ? one.port : other.port, { key }))
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([201]))
    expect(new Set(replies.map(({ text }) => text)).size).toBe(1)
    const reply = await send(one.port, { key, body: { ...ORDER, amount: 1 } })
    expect(reply.json.code).toBe('idempotency-key-reused')
    expect(await rows()).toHaveLength(2)
  })

  test('each process keeps the rate limit by itself', async () => {
    const { instances, lose } = await start({ RATE_LIMIT_MAX: '3' })
    await lose()
    for (const { port } of instances) {
      const statuses = []
      for (let i = 0; i < 4; i++) statuses.push((await send(port)).status)
      expect(statuses).toEqual([201, 201, 201, 429])
    }
  })

  test('one line says that it went, and one that it is back', async () => {
    const { instances, lose, heal } = await start()
    const [{ port, logLines }] = instances
    const told = () =>
      logLines.map(({ msg }) => msg).filter((msg) => String(msg).includes('Redis '))
    await lose()
    for (let i = 0; i < 10; i++) expect((await send(port)).status).toBe(201)
    const gone = [
      'idempotency records are kept in Redis',
      'Redis does not respond; orders go on without it',
    ]
    expect(told()).toEqual(gone.slice(-told().length))
    if (!heal) return
    await heal()
    await until(async () => {
      await send(port)
      return told().at(-1) === 'Redis is back'
    })
    const key = newKey()
    await send(port, { key })
    await until(async () => {
      await send(port, { key })
      return logLines.at(-1)?.idempotency === 'replayed_cache'
    })
  })
})
