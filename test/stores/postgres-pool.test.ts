import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test } from 'vitest'
import { DatabaseUnavailableError } from '../../src/stores/database-unavailable.ts'
import {
  openPostgresPool,
  PoolFullError,
  type PostgresPool,
} from '../../src/stores/postgres-pool.ts'
import { startProxy } from '../support/start-proxy.ts'
import { emptyDatabase } from '../support/stores.ts'
import { until } from '../support/until.ts'

function openPool(url: string) {
  const lines: string[] = []
  const log = pino({}, { write: (line) => void lines.push(JSON.parse(line).msg) })
  const pool = openPostgresPool(url, log)
  onTestFinished(() => pool.close())
  return { pool, lines }
}

const runQuery = (pool: PostgresPool) => pool.query('select 1 as one')

/** Starts a server that accepts connections and never responds. @returns its URL */
async function startSilentServer(): Promise<string> {
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

describe('the pool of connections to Postgres', () => {
  test("returns rows, and errors without the query's values", async () => {
    const { url } = await emptyDatabase()
    const { pool } = openPool(url)
    expect(await runQuery(pool)).toEqual([{ one: 1 }])
    const failing = pool.query('select $1::text from nowhere', ['a secret'])
    await expect(failing).rejects.toThrow('relation "nowhere" does not exist')
    await expect(failing).rejects.not.toThrow('a secret')
  })

  test('leaves no connection that was being opened when it closed', async () => {
    const { url } = await emptyDatabase()
    const { proxy, url: proxyUrl } = await startProxy(url)
    proxy.latencyMs = 30 // the connection is opened after the pool has closed
    const { pool } = openPool(proxyUrl)
    const query = runQuery(pool).catch((error: Error) => error.message)
    await until(() => proxy.serverSidePorts.length > 0)
    await pool.close()
    expect(await query).toContain('the pool is closed')
    await until(() => proxy.serverSidePorts.length === 0)
  })

  test('rejects a query to which Postgres does not respond', async () => {
    const { pool } = openPool(await startSilentServer())
    await expect(runQuery(pool)).rejects.toThrow()
  })

  test('rejects a query at once when 1 000 are pending', async () => {
    const { pool } = openPool(await startSilentServer())
    const pending = Array.from({ length: 1_000 }, () =>
      runQuery(pool).catch((error: Error) => error.name),
    )
    await expect(runQuery(pool)).rejects.toThrow(PoolFullError)
    expect(await Promise.all(pending)).not.toContain('PoolFullError')
  })

  test('never uses a connection again whose query did not end in time', async () => {
    const { url } = await emptyDatabase()
    const { proxy, url: proxiedUrl } = await startProxy(url)
    const { pool, lines } = openPool(proxiedUrl)
    const readBackend = async () => (await pool.query('select pg_backend_pid() as pid'))[0]?.pid
    const before = await readBackend()
    proxy.silence()
    await expect(readBackend()).rejects.toThrow(DatabaseUnavailableError)
    proxy.resume()
    const after = await until(() => readBackend().catch(() => undefined))
    expect(after).not.toBe(before)
    expect(lines).toEqual([
      'Postgres is unavailable; orders are refused with 503',
      'Postgres is back',
    ])
  })

  test('ends a statement that waits for a lock, and keeps its connection', async () => {
    const { url, sql } = await emptyDatabase()
    const { pool } = openPool(url)
    const readBackend = async () => (await pool.query('select pg_backend_pid() as pid'))[0]?.pid
    const before = await readBackend()
    const locked = await sql.reserve()
    await locked`select pg_advisory_lock(1)`
    await expect(pool.query('select pg_advisory_xact_lock(1)')).rejects.toThrow(
      'canceling statement due to statement timeout',
    )
    await locked`select pg_advisory_unlock(1)`
    locked.release()
    expect(await readBackend()).toBe(before)
  })

  test.each(['40001', '40P01'])(
    'repeats a statement that met another transaction (%s)',
    async (code) => {
      const { url, sql } = await emptyDatabase()
      const { pool } = openPool(url)
      // Fails the first time: a sequence is not rolled back.
      await sql.unsafe(`
      create sequence attempts;
      create function fail_once() returns bigint language plpgsql as $$
      begin
        if nextval('attempts') = 1 then raise exception 'conflict' using errcode = '${code}'; end if;
        return currval('attempts');
      end $$`)
      expect(await pool.query('select fail_once()::int as attempt')).toEqual([{ attempt: 2 }])
      await sql.unsafe('drop function fail_once; drop sequence attempts')
    },
  )

  test('works again after its connections were killed many times in the middle of queries', async () => {
    const { url, sql } = await emptyDatabase()
    const { pool } = openPool(url)
    for (let round = 0; round < 10; round++) {
      const queries = Promise.allSettled(Array.from({ length: 20 }, () => runQuery(pool)))
      await sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = 'order-once' and datname = current_database()`
      await queries
    }
    // Some of its connections may notice only now that they were killed.
    await until(async () => {
      const results = await Promise.allSettled(Array.from({ length: 50 }, () => runQuery(pool)))
      return results.every(({ status }) => status === 'fulfilled')
    })
  })
})
