import postgres from 'postgres'
import { describe, expect, onTestFinished, test } from 'vitest'
import { migrateDatabase } from '../../src/stores/migrate.ts'
import { newKey, ORDER, send, sendAll } from '../support/client.ts'
import { createGate, delayInserts } from '../support/gate.ts'
import { scrape } from '../support/scrape.ts'
import { startInstance, type Variation } from '../support/service.ts'
import { SILENT_LOG } from '../support/silent-log.ts'
import { createEmptyDatabase, emptyRedisSpace, hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

describe.runIf(hasRedis)(
  'two services, each with a database of its own, that share one Redis',
  () => {
    async function start(variation: Variation = {}) {
      const redisSpace = await emptyRedisSpace()
      const startOne = async (variation?: Variation) => {
        const url = await createEmptyDatabase()
        await migrateDatabase(url, SILENT_LOG)
        const sql = postgres(url, { max: 1 })
        onTestFinished(() => sql.end())
        const instance = await startInstance({ database: { url }, redisSpace }, variation)
        return {
          ...instance,
          readOrders: async () => (await sql`select id from orders`).map(({ id }) => id),
        }
      }
      const [one, other] = [await startOne(variation), await startOne()]
      expect(one.databaseId).not.toBe(other.databaseId)
      const readRecord = async (key: string) => (await redisSpace.redis.get(`idemp:${key}`)) ?? ''
      return { one, other, readRecord }
    }

    test('both create an order for the same key, each its own, each with a row', async () => {
      const { one, other, readRecord } = await start()
      const key = newKey()
      const first = await send(one.port, { key })
      const record = await until(async () => {
        const text = await readRecord(key)
        return text.includes('completed') && text
      })
      expect(JSON.parse(record).database).toBe(one.databaseId)

      const second = await send(other.port, { key })
      expect(second.status).toBe(201)
      expect(second.headers['idempotency-replayed']).toBeUndefined()
      for (const [service, { text, json }] of [
        [one, first],
        [other, second],
      ] as const) {
        const repeats = await sendAll(5, () => send(service.port, { key }))
        for (const repeat of repeats) {
          expect(repeat).toMatchObject({ status: 201, text })
          expect(repeat.headers['idempotency-replayed']).toBe('true')
        }
        expect(await service.readOrders()).toEqual([json.order.id])
      }
      const changed = await send(other.port, { key, body: { ...ORDER, amount: 1 } })
      expect(changed.json.code).toBe('idempotency-key-reused')
      expect(await readRecord(key)).toBe(record)
    })

    test('neither waits for a request in flight of the other', async () => {
      const gate = createGate()
      const { one, other, readRecord } = await start({ wrapOrders: delayInserts(gate) })
      const key = newKey()
      const first = send(one.port, { key })
      await until(() => gate.arrived === 1)
      const record = await readRecord(key)
      const second = await send(other.port, { key, headers: { prefer: 'wait=30' } })
      expect(second.status).toBe(201)
      expect(await readRecord(key)).toBe(record)
      gate.open()
      expect((await first).json.order.id).not.toBe(second.json.order.id)
      await until(async () => JSON.parse(await readRecord(key)).state === 'completed')
      expect(JSON.parse(await readRecord(key)).response).toBe((await first).text)
    })

    test('a metric counts it, and one warning a minute says it', async () => {
      const { one, other } = await start()
      const key = newKey()
      await send(one.port, { key })
      for (let i = 0; i < 3; i++) expect((await send(other.port, { key })).status).toBe(201)
      const count = async (port: number) =>
        (await scrape(port)).value('order_once_foreign_records_total')
      expect(await count(other.port)).toBe(3)
      expect(await count(one.port)).toBe(0)
      const warnings = other.logLines.filter(({ level }) => level === 40)
      expect(warnings).toMatchObject([
        { msg: expect.stringContaining('belongs to another database') },
      ])
    })
  },
)
