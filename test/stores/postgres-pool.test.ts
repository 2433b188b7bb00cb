import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test } from 'vitest'
import {
  openPostgresPool,
  PoolFullError,
  type PostgresPool,
} from '../../src/stores/postgres-pool.ts'
import { emptyDatabase } from '../support/stores.ts'
import { until } from '../support/until.ts'

function open(url: string) {
  const lines: string[] = []
  const log = pino({}, { write: (line) => void lines.push(JSON.parse(line).msg) })
  const pool = openPostgresPool(url, log)
  onTestFinished(() => pool.close())
  return { pool, lines }
}

const ask = (pool: PostgresPool) => pool.query('select 1 as one')

/** Listens where a Postgres should, accepts connections, and never says a word. */
async function silentServer() {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return `postgres://user@127.0.0.1:${(server.address() as AddressInfo).port}/orders`
}

describe('the connections to Postgres', () => {
  test('answer, or tell of the error without the values of the query', async () => {
    const { url } = await emptyDatabase()
    const { pool } = open(url)
    expect(await ask(pool)).toEqual([{ one: 1 }])
    const failing = pool.query('select $1::text from nowhere', ['a secret'])
    await expect(failing).rejects.toThrow('relation "nowhere" does not exist')
    await expect(failing).rejects.not.toThrow('a secret')
  })

  test('leave no query without an answer, though Postgres says nothing at all', async () => {
    const { pool } = open(await silentServer())
    await expect(ask(pool)).rejects.toThrow()
  })

  test('refuse at once what is more than they can queue', async () => {
    const { pool } = open(await silentServer())
    const queued = Array.from({ length: 1_000 }, () =>
      ask(pool).catch((error: Error) => error.name),
    )
    await expect(ask(pool)).rejects.toThrow(PoolFullError)
    expect(await Promise.all(queued)).not.toContain('PoolFullError')
  })

  test('are replaced when nothing is answered many times in a row, and are whole again', async () => {
    const { url } = await emptyDatabase()
    const { pool, lines } = open(url)
    await ask(pool)
    // Longer than a query may take: no response comes, as on connections that the driver has lost.
    await Promise.allSettled(Array.from({ length: 4 }, () => pool.query('select pg_sleep(8)')))
    expect(lines).toEqual([
      'Postgres did not respond to 4 queries in a row; replacing the connections',
    ])
    expect(await ask(pool)).toEqual([{ one: 1 }])
  })

  test('are whole again after any number of kills in the middle of queries', async () => {
    const { url, sql: admin } = await emptyDatabase()
    const { pool } = open(url)
    let answered = 0
    for (let round = 0; round < 10; round++) {
      const asked = Array.from({ length: 20 }, () =>
        ask(pool).then(
          () => answered++,
          () => {},
        ),
      )
      await admin`
        select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = 'order-once' and datname = current_database()`
      await Promise.all(asked)
    }
    expect(answered).toBeGreaterThan(0)
    // Each of its connections may find out now that it was killed.
    await until(async () => {
      const asked = await Promise.allSettled(Array.from({ length: 50 }, () => ask(pool)))
      return asked.every(({ status }) => status === 'fulfilled')
    })
  })
})
