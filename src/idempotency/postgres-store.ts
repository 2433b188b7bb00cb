import { type SQL, sql } from 'drizzle-orm'
import { answerIn, readRecord, writeCompleted } from './record.ts'
import { idempotencyRecords as records } from './records-table.ts'
import type { Claim, IdempotencyStore, ReportCorruptRecord } from './store.ts'

/** A drizzle database on postgres.js, or what runs one statement in its place. */
export interface StatementRunner {
  execute(statement: SQL): PromiseLike<Record<string, unknown>[]>
}

/** Two claims that meet can pass each other once; more often than this they cannot. */
const MAX_ATTEMPTS = 5

/**
 * Keeps the records in the table `idempotency_records`, for services without Redis: one statement a
 * call, by the database's own clock. A replay writes nothing.
 *
 * @param options `leaseMs`: how long a claim lasts; `ttlMs`: how long an answer is remembered
 */
export function createPostgresStore(
  database: StatementRunner,
  options: { leaseMs: number; ttlMs: number; report?: ReportCorruptRecord },
): IdempotencyStore {
  const { leaseMs, ttlMs, report } = options

  async function claim(key: string, fingerprint: string, token: string): Promise<Claim> {
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const [found] = (await database.execute(
        claimStatement(key, fingerprint, token, leaseMs),
      )) as Found[]
      // A rival's record came after our look at the table and before our insert: look again.
      if (found === undefined) continue
      if (found.claimed) return { state: 'new' }
      if (found.answer === null) {
        if (found.fingerprint !== fingerprint) return { state: 'mismatch', isAnswered: false }
        return { state: 'in_flight' }
      }
      const record = readRecord(key, found.answer, report)
      if (record?.state !== 'completed') {
        await database.execute(
          sql`delete from ${records} where ${records.key} = ${key} and ${records.answer} = ${found.answer}`,
        )
        continue
      }
      if (found.fingerprint !== fingerprint) return { state: 'mismatch', isAnswered: true }
      return { state: 'completed', answer: answerIn(record), remainsMs: found.remains_ms }
    }
    throw new Error('the key was claimed and freed again and again')
  }

  return {
    leaseMs,
    claim,

    async complete(key, token, request) {
      await database.execute(sql`
        insert into ${records} as held (key, fingerprint, token, answer, expires_at)
        values (${key}, ${request.fingerprint}, ${token}, ${writeCompleted(request)}, ${fromNow(ttlMs)})
        on conflict (key) do update
          set fingerprint = excluded.fingerprint, token = excluded.token,
              answer = excluded.answer, expires_at = excluded.expires_at
          where held.expires_at <= now() or (held.token = excluded.token and held.answer is null)`)
    },

    async abandon(key, token) {
      await database.execute(sql`
        delete from ${records}
        where ${records.key} = ${key} and ${records.token} = ${token} and ${records.answer} is null`)
    },
  }
}

/** Deletes at most `limit` records that have expired, and returns how many it deleted. */
export async function deleteExpiredRecords(
  database: StatementRunner,
  limit: number,
): Promise<number> {
  const deleted = await database.execute(sql`
    delete from ${records}
    where ${records.key} in (
      select ${records.key} from ${records}
      where ${records.expiresAt} <= now()
      order by ${records.expiresAt} limit ${limit}
      for update skip locked
    )
    returning 1`)
  return deleted.length
}

type Found = { claimed: boolean; fingerprint: string; answer: string | null; remains_ms: number }

/** Finds what holds the key, else inserts the claim or takes over what has expired or is our own. */
const claimStatement = (key: string, fingerprint: string, token: string, leaseMs: number) => sql`
  with held as (
    select fingerprint, answer, extract(epoch from expires_at - now())::float * 1000 as remains_ms
    from ${records}
    where key = ${key} and expires_at > now() and (token <> ${token} or answer is not null)
  ), claimed as (
    insert into ${records} as old (key, fingerprint, token, expires_at)
    select ${key}, ${fingerprint}, ${token}, ${fromNow(leaseMs)}
    where not exists (select from held)
    on conflict (key) do update
      set fingerprint = excluded.fingerprint, token = excluded.token, answer = null,
          expires_at = excluded.expires_at, created_at = now()
      where old.expires_at <= now() or (old.token = excluded.token and old.answer is null)
    returning fingerprint
  )
  select true as claimed, fingerprint, null as answer, 0::float as remains_ms from claimed
  union all
  select false, fingerprint, answer, remains_ms from held`

const fromNow = (ms: number): SQL => sql`now() + ${`${ms} milliseconds`}::interval`
