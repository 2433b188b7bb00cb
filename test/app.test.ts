import { describe, expect, test } from 'vitest'
import { buildApp } from '../src/app.ts'
import type { OrdersRepository } from '../src/orders/repository.ts'
import { parseSettings } from '../src/settings.ts'
import { StartError } from '../src/start-error.ts'
import { newKey, ORDER, send } from './support/client.ts'
import { createClaimCounter } from './support/count-claims.ts'
import { startService } from './support/service.ts'
import { SILENT_LOG } from './support/silent-log.ts'
import { emptyDatabase } from './support/stores.ts'
import { until } from './support/until.ts'

const WRONG_SIGNATURE = '0'.repeat(64)

describe('the pipeline', () => {
  test('refuses a wrong signature with 401 before it reads the body', async () => {
    const { port } = await startService()
    for (const wrong of [
      { body: '{bad' },
      { body: { ...ORDER, amount: -1 } },
      { body: '' },
      { headers: { 'content-type': 'text/plain' } },
      { headers: { 'content-type': 'not a media type' } },
      { headers: { 'content-encoding': 'gzip' } },
    ]) {
      const reply = await send(port, { ...wrong, signature: WRONG_SIGNATURE })
      expect(reply).toMatchObject({ status: 401, json: { code: 'signature-invalid' } })
      expect(reply.headers['x-ratelimit-limit']).toBeUndefined()
    }
  })

  test('refuses a wrong signature with 401 before it checks the key', async () => {
    const { port } = await startService()
    const used = newKey()
    await send(port, { key: used })
    for (const key of [null, '"', used]) {
      expect(await send(port, { key, signature: WRONG_SIGNATURE })).toMatchObject({
        status: 401,
        json: { code: 'signature-invalid' },
      })
    }
  })

  test('counts a signed request before it checks its body: beyond the limit it is 429, not 400', async () => {
    const { port } = await startService({ env: { RATE_LIMIT_MAX: '2' } })
    const replies = []
    for (let i = 0; i < 3; i++) replies.push(await send(port, { body: '{bad' }))
    expect(replies.map(({ status }) => status)).toEqual([400, 400, 429])
  })

  test('checks the body before the key', async () => {
    const { port } = await startService()
    expect((await send(port, { body: '{bad', key: null })).json.code).toBe('invalid-body')
  })

  test('claims no key for a body that is refused: it stays free for the corrected one', async () => {
    const { claims, wrapIdempotencyStore } = createClaimCounter()
    const { port } = await startService({ wrapIdempotencyStore })
    const key = newKey()
    expect((await send(port, { key, body: { ...ORDER, amount: 0 } })).status).toBe(400)
    expect(claims()).toBe(0)
    const corrected = await send(port, { key })
    expect(corrected.status).toBe(201)
    expect(corrected.headers['idempotency-replayed']).toBeUndefined()
    expect(claims()).toBe(1)
  })

  test('claims no key for a request beyond the rate limit', async () => {
    const { claims, wrapIdempotencyStore } = createClaimCounter()
    const { port } = await startService({ wrapIdempotencyStore, env: { RATE_LIMIT_MAX: '1' } })
    expect((await send(port)).status).toBe(201)
    expect(claims()).toBe(1)
    expect((await send(port)).status).toBe(429)
    expect(claims()).toBe(1)
  })
})

test('a start that fails closes what it has opened', async () => {
  const { url, sql } = await emptyDatabase()
  const countConnections = async () => {
    const [row] = await sql`
      select count(*)::int as count from pg_stat_activity
      where application_name = 'order-once' and datname = current_database()`
    return row?.count
  }
  let query: Promise<unknown> | undefined
  const wrapOrders = (orders: OrdersRepository) => {
    query = orders.findByKey('default', 'opens a connection of the pool')
    return orders
  }
  const settings = parseSettings({ DATABASE_URL: url, IDEMPOTENCY_STORE: 'redis' })
  const stores = { databaseUrl: url, databaseId: '', redisUrl: undefined, isEmbedded: false }
  const starting = buildApp(settings, SILENT_LOG, { stores, wrapOrders })
  await expect(starting).rejects.toThrow(
    new StartError('IDEMPOTENCY_STORE is redis, but there is no REDIS_URL'),
  )
  await query?.catch(() => {})
  await until(async () => (await countConnections()) === 0)
})
