import postgres from 'postgres'
import { describe, expect, onTestFinished, test } from 'vitest'
import { newKey, send, sendAll } from '../support/client.ts'
import { createTestStores, startInstance } from '../support/service.ts'

/** A database with a setting of its own, which each new session gets. */
async function createDatabaseWith(setting: string, value: string) {
  const { database } = await createTestStores({ redis: false })
  const name = new URL(database.url).pathname.slice(1)
  await database.sql.unsafe(`alter database ${name} set ${setting} to ${value}`)
  onTestFinished(async () => {
    await database.sql.unsafe(`alter database ${name} reset ${setting}`)
  })
  return database
}

describe.each([
  ['datestyle', "'German'"],
  ['datestyle', "'SQL, DMY'"],
  ['timezone', "'Asia/Kathmandu'"],
  ['intervalstyle', "'iso_8601'"],
  ['extra_float_digits', '-15'],
  ['bytea_output', "'escape'"],
  ['search_path', "'pg_catalog'"],
  ['default_transaction_isolation', "'repeatable read'"],
  ['default_transaction_isolation', "'serializable'"],
  ['standard_conforming_strings', 'off'],
])('in a database with %s set to %s', (setting, value) => {
  test('an order is created with the time of the database, and replayed to the byte', async () => {
    const database = await createDatabaseWith(setting, value)
    const one = await startInstance({ database })
    const key = newKey()
    const first = await send(one.port, { key })
    expect(first.status).toBe(201)
    const utc = postgres(database.url, { connection: { DateStyle: 'ISO', TimeZone: 'UTC' } })
    onTestFinished(() => utc.end())
    const [row] = await utc`
      select to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as created_at
      from public.orders`
    expect(first.json.order.created_at).toBe(row?.created_at)
    const other = await startInstance({ database }) // has no record of it: rebuilds the response
    expect(await send(other.port, { key })).toMatchObject({ status: 201, text: first.text })
  })

  test('racing duplicates get the order or a refusal, never a failure', async () => {
    const database = await createDatabaseWith(setting, value)
    const instances = [await startInstance({ database }), await startInstance({ database })]
    for (let round = 0; round < 3; round++) {
      const key = newKey()
      const replies = await sendAll(20, (i) => send(instances[i % 2]?.port ?? 0, { key }))
      for (const { status } of replies) expect([201, 409]).toContain(status)
      const bodies = replies.filter(({ status }) => status === 201).map(({ text }) => text)
      expect(new Set(bodies).size).toBe(1)
    }
  })
})
