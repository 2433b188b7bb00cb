import { readFile } from 'node:fs/promises'
import { Redis } from 'ioredis'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test } from 'vitest'
import { cleanUp } from '../../src/clean-up.ts'
import { reconcile } from '../../src/reconcile.ts'
import { checkRedis } from '../../src/stores/check-redis.ts'
import { newKey, ORDER, send } from '../support/client.ts'
import { createGate, delayInserts } from '../support/gate.ts'
import { redisServer, startPrivateRedis } from '../support/private-redis.ts'
import { sendWithDuplicate } from '../support/send-with-duplicate.ts'
import { createTestStores, startInstance } from '../support/service.ts'
import { until } from '../support/until.ts'

const PASSWORD = 'a-password'

/** The rules of the user that docs/operations.md gives to the service. */
async function readDocumentedRules(): Promise<string[]> {
  const page = await readFile(new URL('../../docs/operations.md', import.meta.url), 'utf8')
  const [, rules = ''] = /^ACL SETUSER order-once (.+)$/m.exec(page.replaceAll('\\\n', ' ')) ?? []
  return rules.replace('PASSWORD', PASSWORD).split(/ +/)
}

/** Starts two instances on a Redis in which their user has these rights. */
async function start(rules: string[]) {
  const server = await startPrivateRedis()
  // Not database 0, which is used if SELECT is refused.
  const admin = new Redis(`${server.url}/1`)
  onTestFinished(async () => {
    admin.disconnect()
    await server.stop()
  })
  await admin.call('ACL', 'SETUSER', 'order-once', ...rules)
  const url = new URL(`${server.url}/1`)
  url.username = 'order-once'
  url.password = PASSWORD
  const warnings: unknown[] = []
  await checkRedis(url.href, pino({ level: 'warn' }, { write: (line) => void warnings.push(line) }))
  expect(warnings).toEqual([])
  const { database } = await createTestStores({ redis: false })
  const stores = { database, redisSpace: { url: url.href } }
  const gate = createGate()
  const env = { RATE_LIMIT_MAX: '5' }
  const one = await startInstance(stores, { env, wrapOrders: delayInserts(gate, 1) })
  const other = await startInstance(stores, { env })
  /** what Redis has refused to the user */
  const readRefusals = async () => {
    const entries = (await admin.call('ACL', 'LOG')) as string[][]
    return entries.map((entry) => entry[entry.indexOf('object') + 1])
  }
  return { stores, gate, one, other, admin, readRefusals }
}

type Started = Awaited<ReturnType<typeof start>>

/** Sends an order, a duplicate that waits for it, and a repeat. @returns their key */
async function createAndReplay(started: Started): Promise<string> {
  const { key, first } = await sendWithDuplicate(started)
  expect(await send(started.one.port, { key })).toMatchObject({
    status: 201,
    text: first.text,
    headers: { 'idempotency-replayed': 'true' },
  })
  return key
}

describe.runIf(redisServer)('a Redis user with the documented rights', () => {
  test('can do all that the service does, and nothing is refused to it', async () => {
    const started = await start(await readDocumentedRules())
    const { stores, one, other, admin, readRefusals } = started
    const key = await createAndReplay(started)
    await until(async () => (await admin.get(`idemp:${key}`))?.includes('completed'))

    // Both instances count these requests together.
    expect((await send(other.port, { key, body: { ...ORDER, amount: 1 } })).status).toBe(409)
    await until(async () => (await send(one.port, { key })).status === 429)

    await stores.database.sql`update orders set created_at = created_at - interval '2 days'`
    const { database, redisSpace } = stores
    const urls = { databaseUrl: database.url, redisUrl: redisSpace.url }
    expect(await cleanUp(urls, { keyRetentionDays: 1 })).toMatchObject({ releasedKeys: 1 })
    expect(await admin.get(`idemp:${key}`)).toBeNull()

    expect(await readRefusals()).toEqual([])
  })

  test('can reconcile with three further rights, and nothing is refused to it', async () => {
    const page = await readFile(new URL('../../docs/operations.md', import.meta.url), 'utf8')
    const [, ...rights] =
      /needs three further rights: `(\S+)`, `(\S+)` and `(\S+)`/.exec(page) ?? []
    const rules = [...(await readDocumentedRules()), ...rights]
    const { stores, gate, one, admin, readRefusals } = await start(rules)
    gate.open()
    const key = newKey()
    await send(one.port, { key })
    await until(async () => (await admin.get(`idemp:${key}`))?.includes('completed'))
    await stores.database.sql`delete from orders`
    const { database, redisSpace } = stores
    const found = await reconcile(
      { databaseUrl: database.url, databaseId: one.databaseId },
      redisSpace.url,
      { apply: true },
    )
    expect(found).toMatchObject({ missing: 1, restored: 1 })
    expect(await readRefusals()).toEqual([])
  })

  test('can renew and release a claim, and delete a corrupt record', async () => {
    const { one, other, admin, readRefusals } = await start(await readDocumentedRules())
    const key = newKey()
    const store = one.app.idempotencyStore
    expect(await store.claim(key, 'v1:', 'token')).toEqual({ state: 'new' })
    expect(await store.renew(key, 'v1:', 'token')).toBe(true)
    await store.release(key, 'token')
    expect(await admin.get(`idemp:${key}`)).toBeNull()
    await admin.set(`idemp:${key}`, 'corrupt')
    expect((await send(other.port, { key })).status).toBe(201)
    expect(await readRefusals()).toEqual([])
  })
})

describe.runIf(redisServer)('a Redis user without rights to channels', () => {
  test('creates and replays orders; a duplicate that waits polls', async () => {
    const rules = (await readDocumentedRules()).filter((rule) => !rule.startsWith('&'))
    const started = await start(rules)
    const { admin, readRefusals } = started
    const key = await createAndReplay(started)
    await until(async () => (await admin.get(`idemp:${key}`))?.includes('completed'))
    expect(new Set(await readRefusals())).toEqual(new Set([`idemp:${key}`]))
  })

  test('stores all responses of a batch', async () => {
    const rules = (await readDocumentedRules()).filter((rule) => !rule.startsWith('&'))
    const { one, admin } = await start(rules)
    const keys = Array.from({ length: 20 }, newKey)
    const store = one.app.idempotencyStore
    const response = { statusCode: 201, headers: {}, body: '{}' }
    await Promise.all(
      keys.map((key) => store.complete(key, 'token', { fingerprint: 'v1:', response })),
    )
    for (const key of keys) expect(await admin.get(`idemp:${key}`)).toContain('completed')
    await store.claim('other', 'v1:', 'token')
    await store.release('other', 'token')
    expect(await admin.get('idemp:other')).toBeNull()
  })
})
