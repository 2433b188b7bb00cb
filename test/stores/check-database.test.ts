import postgres from 'postgres'
import { describe, expect, inject, onTestFinished, test } from 'vitest'
import { checkDatabase } from '../../src/stores/check-database.ts'
import { migrateDatabase } from '../../src/stores/migrate.ts'
import { send } from '../support/client.ts'
import { administer } from '../support/database.ts'
import { startProcess } from '../support/process.ts'
import { SILENT_LOG } from '../support/silent-log.ts'
import { createEmptyDatabase, emptyDatabase } from '../support/stores.ts'

/** The rights that docs/operations.md names for the role of the service. */
const DOCUMENTED_RIGHTS = `
  grant usage on schema public to NAME;
  grant select, insert, update on public.orders to NAME;
  grant select, insert, update, delete on public.idempotency_records to NAME;
  grant select on public.order_once_database, public.order_once_migrations to NAME`

/** A role of its own for one test. @returns the URL of the database as this role */
async function createRole(url: string, rights: string): Promise<string> {
  const role = `role_${Math.random().toString(36).slice(2)}`
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  await sql.unsafe(
    `create role ${role} login password 'secret'; ${rights.replaceAll('NAME', role)}`,
  )
  onTestFinished(async () => {
    await sql.unsafe(`drop owned by ${role} cascade; drop role ${role}`)
    await sql.end()
  })
  const asRole = new URL(url)
  asRole.username = role
  asRole.password = 'secret'
  return asRole.href
}

describe('the check of the database at the start', () => {
  test('finds nothing wrong with a migrated database', async () => {
    const { url } = await emptyDatabase()
    await expect(checkDatabase(url)).resolves.toMatch(/^[0-9a-f]{8}$/)
  })

  test('refuses an encoding that cannot hold every text, and says how to create the database', async () => {
    const name = `latin_${Math.random().toString(36).slice(2)}`
    const server = inject('postgresUrl')
    await administer(server, (sql) =>
      sql.unsafe(`create database ${name} encoding 'LATIN1' locale 'C' template template0`),
    )
    const url = new URL(server)
    url.pathname = name
    await expect(checkDatabase(url.href)).rejects.toThrow(
      "the database has the encoding LATIN1, not UTF8: create it with ENCODING 'UTF8' TEMPLATE template0",
    )
  })

  test('names a table that does not exist, and what to do', async () => {
    await expect(checkDatabase(await createEmptyDatabase())).rejects.toThrow(
      'the table public.orders does not exist, although its migration was applied: restore the database',
    )
  })

  test.each([
    [
      'without the unique constraint',
      'drop constraint orders_client_id_idempotency_key',
      /no unique/,
    ],
    ['with another name of a column', 'rename column item to thing', /column "item"/],
    ['with a column that is not filled', 'add column thing text not null', /"thing"/],
  ])('refuses a table %s: no order could be inserted', async (_case, change, reason) => {
    const url = await createEmptyDatabase()
    await migrateDatabase(url, SILENT_LOG)
    await checkDatabase(url)
    await administer(url, (sql) => sql.unsafe(`alter table orders ${change}`))
    const refused = await checkDatabase(url).catch((error: Error) => error)
    expect(refused).toMatchObject({ name: 'StartError' })
    expect(`${refused}`).toMatch(/an order cannot be inserted: /)
    expect(`${refused}`).toMatch(reason)
  })

  test('names a right that is missing, and the statement that grants it', async () => {
    const { url } = await emptyDatabase()
    const rights = DOCUMENTED_RIGHTS.replace('select, insert, update on', 'select, update on')
    const asRole = await createRole(url, rights)
    await expect(checkDatabase(asRole)).rejects.toThrow(
      /^the role role_\w+ may not insert in public\.orders: run `grant insert on public\.orders to role_\w+`$/,
    )
  })
})

test('a database whose id was deleted is refused, with the statement that gives it one', async () => {
  const url = await createEmptyDatabase()
  await migrateDatabase(url, SILENT_LOG)
  await administer(url, (sql) => sql`delete from order_once_database`)
  const refused = await checkDatabase(url).catch((error: Error) => error.message)
  expect(refused).toMatch(/^the table public\.order_once_database is empty: run `insert into .+`$/)
  const [, statement = ''] = /`(.+)`/.exec(String(refused)) ?? []
  await administer(url, (sql) => sql.unsafe(statement))
  expect(await checkDatabase(url)).toMatch(/^[0-9a-f]{8}$/)
})

test('a role with the documented rights runs the service on a database that another role migrated', async () => {
  const { url } = await emptyDatabase()
  const service = await startProcess({ DATABASE_URL: await createRole(url, DOCUMENTED_RIGHTS) })
  expect((await send(service.port)).status).toBe(201)
})

test('a role that may create in the schema, but no schemas, migrates an empty database', async () => {
  const url = await createEmptyDatabase()
  const asRole = await createRole(url, 'grant usage, create on schema public to NAME')
  await migrateDatabase(asRole, SILENT_LOG)
  await expect(checkDatabase(asRole)).resolves.toMatch(/^[0-9a-f]{8}$/)
})
