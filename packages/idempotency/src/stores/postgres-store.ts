/** A store in Postgres, in the table of `sql/idempotency-records.sql`. */
import { createRecordFormat, type RecordOptions, readResponse } from './record.ts'
import { cacheRepeats } from './response-cache.ts'
import type { Claim, IdempotencyStore } from './store.ts'

/** Runs one SQL statement with values for `$1`, `$2`, … @returns the rows, by column name */
export type RunQuery = (
  text: string,
  values: (string | number | null)[],
) => PromiseLike<Record<string, unknown>[]>

/** Two claims at once can miss each other once; more often means a fault. */
const MAX_ATTEMPTS = 5

const fromNow = (parameter: string) => `now() + ${parameter}::float8 * interval '1 millisecond'`

/**
 * Finds a record that prevents the claim. Without one, inserts the claim, or takes over a record that has
 * expired or has the same token. $1 key, $2 fingerprint, $3 token, $4 lease in ms, $5 database.
 */
const CLAIM = `
  with found as (
    select fingerprint, response, database,
           (extract(epoch from expires_at - now()) * 1000)::bigint as remaining_ms
    from public.idempotency_records
    where key = $1 and expires_at > now() and (token <> $3 or response is not null)
  ), claimed as (
    insert into public.idempotency_records as old (key, fingerprint, token, expires_at, database)
    select $1, $2, $3, ${fromNow('$4')}, $5
    where not exists (select from found)
    on conflict (key) do update
      set fingerprint = excluded.fingerprint, token = excluded.token, response = null,
          expires_at = excluded.expires_at, database = excluded.database, created_at = now()
      where old.expires_at <= now() or (old.token = excluded.token and old.response is null)
    returning fingerprint
  )
  select true as is_claimed, fingerprint, null as response, null as database, 0::bigint as remaining_ms
  from claimed
  union all
  select false, fingerprint, response, database, remaining_ms from found`

/** Deletes a record that cannot be read, unless it has changed. $1 key, $2 its text. */
const DELETE_CORRUPT = 'delete from public.idempotency_records where key = $1 and response = $2'

/** Claims a free or expired key, extends a claim of the same token. Parameters as for a claim. */
const RENEW = `
  insert into public.idempotency_records as old (key, fingerprint, token, expires_at, database)
  values ($1, $2, $3, ${fromNow('$4')}, $5)
  on conflict (key) do update
    set fingerprint = excluded.fingerprint, token = excluded.token, response = null,
        expires_at = excluded.expires_at, database = excluded.database, created_at = now()
    where old.expires_at <= now() or (old.token = excluded.token and old.response is null)
  returning key`

/** $1 key, $2 fingerprint, $3 token, $4 the response's record, $5 its time to live in ms, $6 database. */
const COMPLETE = `
  insert into public.idempotency_records as old (key, fingerprint, token, response, expires_at, database)
  values ($1, $2, $3, $4, ${fromNow('$5')}, $6)
  on conflict (key) do update
    set fingerprint = excluded.fingerprint, token = excluded.token, response = excluded.response,
        expires_at = excluded.expires_at, database = excluded.database, created_at = now()
    where old.expires_at <= now() or (old.token = excluded.token and old.response is null)`

const RELEASE =
  'delete from public.idempotency_records where key = $1 and token = $2 and response is null'

const DELETE_EXPIRED = `
  delete from public.idempotency_records
  where key in (
    select key from public.idempotency_records
    where expires_at <= now()
    order by expires_at limit $1
    for update skip locked
  )
  returning key`

/**
 * Creates a store in Postgres: one statement per call, by the database's own clock. A replay writes
 * nothing.
 *
 * @param runQuery any driver's: `(text, values) => pool.query(text, values).then(({ rows }) => rows)`
 * @param options `leaseMs`: how long a claim lasts; `ttlMs`: how long a response is kept
 */
export function createPostgresStore(
  runQuery: RunQuery,
  options: RecordOptions & { leaseMs: number; ttlMs: number },
): IdempotencyStore {
  const { leaseMs, ttlMs, database = null } = options
  const records = createRecordFormat(options)

  async function claim(key: string, fingerprint: string, token: string): Promise<Claim> {
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const [row] = await runQuery(CLAIM, [key, fingerprint, token, leaseMs, database])
      // Another claim was inserted between the look-up and the insert: look again.
      if (row === undefined) continue
      if (row.is_claimed === true) return { state: 'new' }
      records.checkDatabase(key, row.database)
      const remainingMs = Number(row.remaining_ms)
      if (row.response === null) {
        if (row.fingerprint !== fingerprint) return { state: 'mismatch', isCompleted: false }
        return { state: 'in_flight', remainingMs }
      }
      const text = String(row.response)
      const record = records.parse(key, text)
      if (record?.state !== 'completed') {
        await runQuery(DELETE_CORRUPT, [key, text])
        continue
      }
      if (row.fingerprint !== fingerprint) return { state: 'mismatch', isCompleted: true }
      return { state: 'completed', response: readResponse(record), remainingMs }
    }
    throw new Error(`the key could not be claimed in ${MAX_ATTEMPTS} attempts`)
  }

  return {
    leaseMs,
    ttlMs,
    replayedHeaders: records.replayedHeaders,
    claim: cacheRepeats(claim),

    async renew(key, fingerprint, token) {
      return (await runQuery(RENEW, [key, fingerprint, token, leaseMs, database])).length > 0
    },

    async complete(key, token, request) {
      const record = records.formatCompleted(request)
      await runQuery(COMPLETE, [key, request.fingerprint, token, record, ttlMs, database])
    },

    async release(key, token) {
      await runQuery(RELEASE, [key, token])
    },
  }
}

/** Deletes at most `limit` expired records. @returns how many were deleted */
export async function deleteExpiredRecords(runQuery: RunQuery, limit: number): Promise<number> {
  return (await runQuery(DELETE_EXPIRED, [limit])).length
}
