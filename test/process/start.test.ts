import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import postgres from 'postgres'
import { expect, onTestFinished, test } from 'vitest'
import { LOCKS } from '../../src/stores/locks.ts'
import { spawnService } from '../support/process.ts'
import { createEmptyDatabase, emptyDatabase } from '../support/stores.ts'
import { until } from '../support/until.ts'

const hasLine = (text: string, message: string | RegExp) =>
  text.split('\n').some((line) => line.match(message))

test('a start that waits for the migrations of another instance says so, and SIGTERM ends it', async () => {
  const url = await createEmptyDatabase()
  const holder = postgres(url, { max: 1 })
  onTestFinished(() => holder.end())
  await holder`select pg_advisory_lock(${String(LOCKS.migration)}::bigint)`
  const service = await spawnService({ DATABASE_URL: url })
  await until(() =>
    hasLine(service.stdout(), 'waiting for Postgres, or for the migrations of another instance'),
  )
  expect(await service.stop('SIGTERM')).toBe(0)
  expect(service.stderr()).toBe('')
})

test('a start that waits for a locked table says so, and SIGTERM ends it', async () => {
  const { url, sql } = await emptyDatabase()
  const holder = await sql.reserve()
  onTestFinished(() => holder.release())
  await holder`begin`
  onTestFinished(() => void holder`rollback`)
  await holder`lock table order_once_migrations in access exclusive mode`
  const service = await spawnService({ DATABASE_URL: url })
  await until(() => hasLine(service.stdout(), /waiting for Postgres, or for the migrations/))
  expect(await service.stop('SIGTERM')).toBe(0)
})

test('a start that waits for a Postgres that does not respond says so, and SIGTERM ends it', async () => {
  const silent = createServer(() => {}).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  onTestFinished(() => void silent.close())
  const { port } = silent.address() as AddressInfo
  const service = await spawnService({
    DATABASE_URL: `postgres://user:secret@127.0.0.1:${port}/orders`,
  })
  const waiting = `waiting for Postgres at 127.0.0.1:${port}/orders`
  await until(() => hasLine(service.stdout(), waiting))
  expect(await service.stop('SIGTERM')).toBe(0)
  expect(service.stdout()).not.toContain('secret')
})
