import { readFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { blockInsert } from '../support/blocked-inserts.ts'
import { newKey, ORDER, type Reply, send } from '../support/client.ts'
import { type ServiceProcess, startProcess } from '../support/process.ts'
import { startInstance } from '../support/service.ts'
import { startProxy } from '../support/start-proxy.ts'
import { emptyRedisSpace, hasRedis } from '../support/stores.ts'
import type { TcpProxy } from '../support/tcp-proxy.ts'
import { until } from '../support/until.ts'

/** One order in flight in an instance whose stores are behind proxies. */
interface Scene {
  instance: ServiceProcess
  postgres: TcpProxy
  redis: TcpProxy
  /** the response to the first request; undefined if its connection was lost */
  first: Promise<Reply | undefined>
  countRows(): Promise<number>
  readRecord(): Promise<string | null>
  deleteRecords(): Promise<void>
  unblockInsert(): Promise<void>
}

/** How far the order gets before something breaks; at first its insert is blocked in Postgres. */
const STEPS = {
  'claimed, not inserted': async () => {},
  'inserted, not sent': async ({ postgres, unblockInsert, countRows }) => {
    postgres.silence()
    await unblockInsert()
    await until(async () => (await countRows()) === 1)
  },
  'sent, not stored': async ({ redis, unblockInsert, first, readRecord }) => {
    redis.silence()
    await unblockInsert()
    expect((await first)?.status).toBe(201)
    expect(await readRecord()).toContain('in_flight')
  },
  stored: async ({ unblockInsert, first, readRecord }) => {
    await unblockInsert()
    await first
    await until(async () => (await readRecord())?.includes('completed'))
  },
} satisfies Record<string, (scene: Scene) => Promise<void>>

const FAULTS = {
  'the instance is killed': async ({ instance }) => void (await instance.stop('SIGKILL')),
  'Redis loses its data and connections': async ({ redis, deleteRecords }) => {
    redis.resetAll()
    await deleteRecords()
  },
  'the connections to Postgres are lost': async ({ postgres }) => postgres.resetAll(),
} satisfies Record<string, (scene: Scene) => Promise<void>>

const LOST = 'no response: the connection is lost'
const CREATED = '201'
const REPLAYED = '201, as a replay'

/** How far the order gets, what breaks then, what the client gets, and what its retry gets. */
const CASES: [keyof typeof STEPS, keyof typeof FAULTS, string, string][] = [
  ['claimed, not inserted', 'the instance is killed', LOST, REPLAYED],
  ['claimed, not inserted', 'Redis loses its data and connections', CREATED, REPLAYED],
  ['claimed, not inserted', 'the connections to Postgres are lost', CREATED, REPLAYED],
  ['inserted, not sent', 'the instance is killed', LOST, REPLAYED],
  ['inserted, not sent', 'Redis loses its data and connections', CREATED, REPLAYED],
  ['inserted, not sent', 'the connections to Postgres are lost', CREATED, REPLAYED],
  ['sent, not stored', 'the instance is killed', CREATED, REPLAYED],
  ['sent, not stored', 'Redis loses its data and connections', CREATED, REPLAYED],
  ['sent, not stored', 'the connections to Postgres are lost', CREATED, REPLAYED],
  ['stored', 'the instance is killed', CREATED, REPLAYED],
  ['stored', 'Redis loses its data and connections', CREATED, REPLAYED],
  ['stored', 'the connections to Postgres are lost', CREATED, REPLAYED],
]

describe.runIf(hasRedis)('an order is created once, and its retry gets it', () => {
  test.each(CASES)('when it is %s and %s', async (step, fault, expectedFirst, expectedRetry) => {
    const key = newKey()
    const { scene, other, readOrderIds } = await stage(key)
    await STEPS[step](scene)
    await FAULTS[fault](scene)
    scene.postgres.resume()
    scene.redis.resume()
    await scene.unblockInsert()

    const first = await scene.first
    expect(describeReply(first)).toBe(expectedFirst)
    const retry = await until(async () => {
      const reply = await send(other.port, { key })
      return reply.status !== 409 && reply // until Postgres has completed the insert
    })
    expect(describeReply(retry)).toBe(expectedRetry)
    if (first) expect(retry.text).toBe(first.text)
    expect(await readOrderIds()).toEqual([retry.json.order.id])
    const changed = await send(other.port, { key, body: { ...ORDER, amount: 1 } })
    expect(changed.json.code).toBe('idempotency-key-reused')
  })
})

test('docs/reliability.md has these cases in its table', async () => {
  const page = await readFile(new URL('../../docs/reliability.md', import.meta.url), 'utf8')
  const rows = CASES.map((cells) => `| ${cells.join(' | ')} | 1 |`)
  expect(page).toContain(rows.join('\n'))
})

/** Sends an order to an instance until it is claimed and Postgres has its insert. */
async function stage(key: string) {
  const { url, sql, isBlocking, unblock } = await blockInsert(key)
  const space = await emptyRedisSpace()
  const postgres = await startProxy(url)
  const redis = await startProxy(space.url)
  const instance = await startProcess({ DATABASE_URL: postgres.url, REDIS_URL: redis.url })
  const other = await startInstance({ database: { url }, redisSpace: space })

  const first = send(instance.port, { key }).catch(() => undefined)
  await until(isBlocking)
  const readRecord = () => space.redis.get(`idemp:${key}`)
  expect(await readRecord()).toContain('in_flight')
  const readOrderIds = async () => (await sql`select id from orders`).map(({ id }) => id)
  const scene: Scene = {
    instance,
    postgres: postgres.proxy,
    redis: redis.proxy,
    first,
    countRows: async () => (await readOrderIds()).length,
    readRecord,
    deleteRecords: space.flush,
    unblockInsert: unblock,
  }
  return { scene, other, readOrderIds }
}

function describeReply(reply: Reply | undefined): string {
  if (reply === undefined) return LOST
  const isReplay = reply.headers['idempotency-replayed'] === 'true'
  return `${reply.status}${isReplay ? ', as a replay' : ''}`
}
