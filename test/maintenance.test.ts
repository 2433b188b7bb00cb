import postgres from 'postgres'
import { describe, expect, onTestFinished, test } from 'vitest'
import { runBinary } from './support/process.ts'
import { createEmptyDatabase, emptyDatabase } from './support/stores.ts'

const succeed = (...lines: string[]) => ({
  code: 0,
  stdout: lines.map((line) => `${line}\n`).join(''),
  stderr: '',
})

describe('order-once migrate', () => {
  test('applies the migrations, and changes nothing when it runs again', async () => {
    const url = await createEmptyDatabase()
    for (let i = 0; i < 2; i++) {
      expect(await runBinary(['migrate'], { DATABASE_URL: url })).toEqual(
        succeed('The database is up to date.'),
      )
    }
    const sql = postgres(url, { max: 1 })
    onTestFinished(() => sql.end())
    expect(await sql`select id from orders`).toEqual([])
  })

  test('exits with 1 and one line, without the password, if Postgres refuses the connection', async () => {
    const url = new URL((await emptyDatabase()).url)
    url.password = 'not-the-password'
    const { code, stdout, stderr } = await runBinary(['migrate'], { DATABASE_URL: url.href })
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(
      /^order-once migrate failed: Postgres at 127\.0\.0\.1:\d+\/test_\w+ cannot be used: .*\n$/,
    )
    expect(stderr).not.toContain('not-the-password')
  })
})

test('order-once cleanup exits with 1 and one line if Redis does not respond', async () => {
  const { url } = await emptyDatabase()
  const env = { DATABASE_URL: url, REDIS_URL: 'redis://127.0.0.1:1', KEY_RETENTION_DAYS: '1' }
  const { code, stdout, stderr } = await runBinary(['cleanup'], env)
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(/^the clean-up did not end: .*\n$/)
})

describe('order-once cleanup', () => {
  /** Fills the database with two old orders, a new one and an expired record. */
  async function fillDatabase() {
    const { url, sql } = await emptyDatabase()
    await sql`
      insert into orders (id, user_id, item, amount, idempotency_key, request_fingerprint, created_at)
      select gen_random_uuid(), 'u', 'i', 1, 'key-' || age, 'v1:', now() - age * interval '1 day'
      from unnest(array[40, 31, 1]) age`
    await sql`
      insert into idempotency_records (key, fingerprint, token, expires_at)
      values ('expired', '', '', now() - interval '1 minute')`
    return { url, sql }
  }

  test('prints how many keys it released and how many records it deleted', async () => {
    const { url, sql } = await fillDatabase()
    const env = { DATABASE_URL: url, KEY_RETENTION_DAYS: '30' }
    expect(await runBinary(['cleanup'], env)).toEqual(
      succeed(
        'Released keys of orders older than 30 days: 2.',
        'Deleted expired idempotency records: 1.',
      ),
    )
    expect(await sql`select idempotency_key from orders where idempotency_key is not null`).toEqual(
      [{ idempotency_key: 'key-1' }],
    )
    expect(await sql`select key from idempotency_records`).toEqual([])
  })

  test('prints that keys are kept if KEY_RETENTION_DAYS is 0', async () => {
    const { url } = await fillDatabase()
    expect(await runBinary(['cleanup'], { DATABASE_URL: url })).toEqual(
      succeed(
        'Keys are kept for ever (KEY_RETENTION_DAYS is 0).',
        'Deleted expired idempotency records: 1.',
      ),
    )
  })
})
