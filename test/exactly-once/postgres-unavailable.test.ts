import postgres, { type Sql } from 'postgres'
import { describe, expect, onTestFinished, test } from 'vitest'
import { migrateDatabase } from '../../src/stores/migrate.ts'
import { get, newKey, send } from '../support/client.ts'
import { startPrivatePostgres } from '../support/private-postgres.ts'
import { createTestStores, startInstance } from '../support/service.ts'
import { SILENT_LOG } from '../support/silent-log.ts'
import { until } from '../support/until.ts'

/** How long readiness may take to follow the state of Postgres: a bound for a broken service. */
const FOLLOWS_WITHIN_MS = 5_000

const isReady = async (port: number) => (await get(port, '/health/ready')).status === 200

/** States in which Postgres refuses orders although it responds. Each begins, and ends by itself. */
const states: { name: string; begin(sql: Sql): Promise<() => Promise<unknown>> }[] = [
  {
    name: 'read-only',
    begin: async (sql) => {
      const [row] = await sql`select current_database() as name`
      await sql.unsafe(`alter database ${row?.name} set default_transaction_read_only to on`)
      await sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = 'order-once' and datname = current_database()`
      return async () => {
        await sql.begin('read write', (writable) =>
          writable.unsafe(`alter database ${row?.name} reset default_transaction_read_only`),
        )
      }
    },
  },
  {
    name: 'without room on its disk',
    begin: async (sql) => {
      await sql.unsafe(`
        create function no_room() returns trigger language plpgsql as
          $$ begin raise exception 'could not extend file' using errcode = 'disk_full'; end $$;
        create trigger no_room after insert on orders for each row execute function no_room()`)
      return async () => {
        await sql.unsafe('drop trigger no_room on orders; drop function no_room')
      }
    },
  },
  {
    name: 'locked by another transaction',
    begin: async (sql) => {
      let unlock = () => {}
      const unlocked = new Promise<void>((resolve) => {
        unlock = resolve
      })
      let locked = () => {}
      const isLocked = new Promise<void>((resolve) => {
        locked = resolve
      })
      const transaction = sql.begin(async (holder) => {
        await holder`lock table orders in access exclusive mode`
        locked()
        await unlocked
      })
      await isLocked
      return async () => {
        unlock()
        await transaction
      }
    },
  },
  {
    name: 'without the table of orders',
    begin: async (sql) => {
      await sql`alter table orders rename to orders_elsewhere`
      return () => sql`alter table orders_elsewhere rename to orders`
    },
  },
  {
    name: 'with another name of a column',
    begin: async (sql) => {
      await sql`alter table orders rename column item to thing`
      return () => sql`alter table orders rename column thing to item`
    },
  },
  {
    name: 'without the unique constraint',
    begin: async (sql) => {
      await sql`alter table orders drop constraint orders_client_id_idempotency_key`
      return () => sql`
        alter table orders
        add constraint orders_client_id_idempotency_key unique (client_id, idempotency_key)`
    },
  },
]

describe.each(states)('while Postgres is $name', ({ begin }) => {
  test('orders are refused with 503 and Retry-After, readiness follows, and all is well after it', async () => {
    const { database } = await createTestStores({ redis: false })
    const { port, logLines } = await startInstance({ database })
    expect((await send(port)).status).toBe(201)
    const end = await begin(database.sql)

    const key = newKey()
    const refused = await send(port, { key })
    expect(refused).toMatchObject({ status: 503, json: { code: 'database-unavailable' } })
    expect(refused.headers['retry-after']).toBe('1')
    await until(async () => !(await isReady(port)), FOLLOWS_WITHIN_MS)

    await end()
    await until(() => isReady(port), FOLLOWS_WITHIN_MS)
    expect((await send(port, { key })).status).toBe(201)
    const lines = logLines.filter(({ msg }) => /^Postgres is/.test(`${msg}`)).map(({ msg }) => msg)
    expect(lines).toEqual([
      'Postgres is unavailable; orders are refused with 503',
      'Postgres is back',
    ])
  })
})

/** Sends orders that are refused after seconds. @returns the most backends that the service had */
async function countBackendsUnderLoad(port: number, sql: Sql): Promise<number> {
  const backends = async () => {
    const [row] = await sql`
      select count(*)::int as count from pg_stat_activity
      where application_name = 'order-once' and datname = current_database()`
    return row?.count as number
  }
  // Each of them times out several times over; more come all the time.
  let done = 0
  let mostBackends = 0
  const load = Array.from({ length: 40 }, async () => {
    for (let i = 0; i < 3; i++) await send(port)
    done++
  })
  await until(async () => {
    mostBackends = Math.max(mostBackends, await backends())
    return done === load.length
  })
  return mostBackends
}

test('a lock that lasts does not pile up connections', async () => {
  const { database } = await createTestStores({ redis: false })
  const { port } = await startInstance({ database })
  const [lock] = states.filter(({ name }) => name.startsWith('locked'))
  const end = await lock?.begin(database.sql)
  const mostBackends = await countBackendsUnderLoad(port, database.sql)
  await end?.()
  expect(mostBackends).toBeLessThanOrEqual(22)
  await until(() => isReady(port), FOLLOWS_WITHIN_MS)
})

test('a synchronous standby that is missing does not pile up connections, and readiness follows', async () => {
  const server = await startPrivatePostgres()
  const sql = postgres(server.url.href, { max: 2, onnotice: () => {} })
  onTestFinished(async () => {
    await sql.end()
    await server.stop()
  })
  const setStandby = async (name: string) => {
    await sql.unsafe(`alter system set synchronous_standby_names = '${name}'`)
    await sql`select pg_reload_conf()`
  }
  await migrateDatabase(server.url.href, SILENT_LOG)
  // Each claim is a commit, too.
  const env = { IDEMPOTENCY_STORE: 'postgres' }
  const { port } = await startInstance({ database: { url: server.url.href } }, { env })
  expect((await send(port)).status).toBe(201)
  await setStandby('nobody')
  // Postgres reads the setting some time after the reload.
  const key = await until(async () => {
    const key = newKey()
    return (await send(port, { key })).json.code === 'database-unavailable' && key
  })
  await until(async () => !(await isReady(port)), FOLLOWS_WITHIN_MS)
  expect(await countBackendsUnderLoad(port, sql)).toBeLessThanOrEqual(22)
  expect(await isReady(port)).toBe(false)

  await setStandby('')
  await until(() => isReady(port), FOLLOWS_WITHIN_MS)
  expect((await send(port, { key })).status).toBe(201)
})
