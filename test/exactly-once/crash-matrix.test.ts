import { describe, expect, test } from 'vitest'
import { newKey, ORDER, type Reply, send } from '../support/client.ts'
import { holdInsertOf } from '../support/held-inserts.ts'
import { type ServiceProcess, startProcess } from '../support/process.ts'
import { proxied } from '../support/proxied.ts'
import { startInstance } from '../support/service.ts'
import { emptyRedisSpace, hasRedis } from '../support/stores.ts'
import type { TcpProxy } from '../support/tcp-proxy.ts'
import { until } from '../support/until.ts'

/** One order on its way through one instance, behind proxies, and another instance for its retry. */
interface Scene {
  instance: ServiceProcess
  postgres: TcpProxy
  redis: TcpProxy
  /** what the client hears of its first try: its answer, or that the connection was lost */
  first: Promise<Reply | undefined>
  rows(): Promise<{ id: string }[]>
  record(): Promise<string | null>
  loseRecords(): Promise<void>
  release(): Promise<void>
}

/** Where the order's way is stopped: each takes it from where the one before left it. */
const steps: { name: string; reach(scene: Scene): Promise<unknown> }[] = [
  { name: 'claimed, not inserted', reach: async () => {} },
  {
    name: 'inserted, not answered',
    reach: async ({ postgres, release, rows }) => {
      postgres.hush()
      await release()
      await until(async () => (await rows()).length === 1)
    },
  },
  {
    name: 'answered, not remembered',
    reach: async ({ redis, release, first, record }) => {
      redis.hush()
      await release()
      expect((await first)?.status).toBe(201)
      expect(await record()).toContain('in_flight')
    },
  },
  {
    name: 'remembered',
    reach: async ({ release, first, record }) => {
      await release()
      await first
      await until(async () => (await record())?.includes('completed'))
    },
  },
]

const faults: { name: string; strike(scene: Scene): Promise<unknown> }[] = [
  { name: 'the instance is killed', strike: ({ instance }) => instance.stop('SIGKILL') },
  {
    name: 'Redis is lost, with all that it knew',
    strike: async ({ redis, loseRecords }) => {
      redis.cutAll()
      await loseRecords()
    },
  },
  {
    name: 'the connections to Postgres are lost',
    strike: async ({ postgres }) => postgres.cutAll(),
  },
]

const INTRODUCTION = `# What holds when something breaks

Postgres decides, Redis remembers: see [the README](../README.md#how-it-happens-once). Two kinds of tests
prove it by failures, on real servers.

**The faults.** \`npm run test:faults -- --seconds 60\` runs several instances under load while instances,
Redis and Postgres are killed, frozen, flushed, slowed and cut off, by a schedule that its seed repeats,
and checks from outside that no order was lost, doubled or invented.

**The matrix.** Each row stops one order exactly there on its way, breaks one thing, and asks another
instance for the order. The test writes this table (\`npx vitest run crash-matrix --update\`); it fails if
the table is not what happens.

`

const TABLE_HEAD = `| the order is | and then | the client hears | its retry, elsewhere, hears | rows |
|---|---|---|---|---|
`

const results: string[] = []

describe.runIf(hasRedis)('an order is made once, and its retry gets it', () => {
  const cases = steps.flatMap((step) => faults.map((fault) => ({ step, fault })))

  test.each(cases)('when it is $step.name and $fault.name', async ({ step, fault }) => {
    const key = newKey()
    const { scene, other } = await stage(key)
    await step.reach(scene)
    await fault.strike(scene)
    scene.postgres.speak()
    scene.redis.speak()
    await scene.release()

    const first = await scene.first
    const retry = await until(async () => {
      const reply = await send(other.port, { key })
      return reply.status === 201 && reply
    })
    const rows = await scene.rows()
    expect(rows).toEqual([{ id: (retry as Reply).json.order.id }])
    if (first?.status === 201) expect((retry as Reply).text).toBe(first.text)
    const changed = await send(other.port, { key, body: { ...ORDER, amount: 1 } })
    expect(changed.json.code).toBe('idempotency-key-reused')
    results.push(
      `| ${step.name} | ${fault.name} | ${describeReply(first)} | ${describeReply(retry as Reply)} | ${rows.length} |`,
    )
  })

  test('as docs/reliability.md tells', async () => {
    await expect(`${INTRODUCTION}${TABLE_HEAD}${results.join('\n')}\n`).toMatchFileSnapshot(
      '../../docs/reliability.md',
    )
  })
})

/** Brings an order as far as its claim, and its insert to Postgres's door. */
async function stage(key: string): Promise<{ scene: Scene; other: { port: number } }> {
  const inserts = await holdInsertOf(key)
  const space = await emptyRedisSpace()
  const postgres = await proxied(inserts.url)
  const redis = await proxied(space.url)
  // A short lease: where the dead left a mark and no row, the retry waits for its end.
  const env = { IDEMPOTENCY_LEASE_SECONDS: '1' }
  const stores = { DATABASE_URL: postgres.url, REDIS_URL: redis.url }
  const instance = await startProcess({ ...env, ...stores })
  const other = await startInstance({ database: inserts, redisSpace: space }, { env })

  const first = send(instance.port, { key }).catch(() => undefined)
  await until(inserts.isWaiting)
  const record = () => space.redis.get(`idemp:${key}`)
  expect(await record()).toContain('in_flight')
  const rows = async () => (await inserts.sql`select id from orders`).map(({ id }) => ({ id }))
  const scene = {
    instance,
    postgres: postgres.proxy,
    redis: redis.proxy,
    first,
    rows,
    record,
    loseRecords: space.flush,
    release: inserts.release,
  }
  return { scene, other }
}

function describeReply(reply: Reply | undefined): string {
  if (reply === undefined) return 'nothing: the connection is lost'
  const isReplay = reply.headers['idempotency-replayed'] === 'true'
  return `${reply.status}${isReplay ? ', as a replay' : ''}`
}
