/**
 * The history of a database: a failover or a restore begins another one, in which acknowledged orders may be
 * missing. Redis keeps the last one that is known to agree with its records.
 */

import type postgres from 'postgres'
import { getErrorCode } from '../error-code.ts'
import type { RedisClient } from './redis-client.ts'

/** A moment in the history of a database. */
export interface DatabaseHistory {
  /** the identifier that initdb gave to the server and its standbys */
  system: string
  /** eight hex digits; each promotion, and each recovery to a point in time, begins a new timeline */
  timeline: string
  /** how far the log was flushed, as two hex numbers: it only grows, unless the files were restored */
  lsn: string
  /** the newest timeline that was seen after this moment, if it is another one */
  newest?: string | undefined
}

/** (`pg_control_checkpoint()` shows the old timeline for seconds after a promotion.) */
const READ_HISTORY = `
  select system_identifier::text as system,
         left(pg_walfile_name(pg_current_wal_lsn()), 8) as timeline,
         pg_current_wal_flush_lsn()::text as lsn
  from pg_control_system()`

/** @throws if the server has no such functions, as some that only speak the protocol of Postgres */
export async function readDatabaseHistory(client: postgres.Sql): Promise<DatabaseHistory> {
  const [row] = await client.unsafe(READ_HISTORY)
  return { system: String(row?.system), timeline: String(row?.timeline), lsn: String(row?.lsn) }
}

/** Whether `readDatabaseHistory` failed because there is no such function, or no right to call it (class 42). */
export const isHistoryHidden = (error: unknown) => /^42...$/.test(getErrorCode(error))

/** Whether nothing that was flushed at the earlier moment can be missing at the later one. */
export function isContinued(earlier: DatabaseHistory, later: DatabaseHistory): boolean {
  return (
    earlier.system === later.system &&
    earlier.timeline === later.timeline &&
    parseLsn(earlier.lsn) <= parseLsn(later.lsn)
  )
}

function parseLsn(lsn: string): bigint {
  const [high = '0', low = '0'] = lsn.split('/')
  return (BigInt(`0x${high}`) << 32n) + BigInt(`0x${low}`)
}

const createName = (databaseId: string) => `order-once:history:${databaseId}`

/** @returns undefined if Redis has none */
export async function readKnownHistory(
  redis: RedisClient,
  databaseId: string,
): Promise<DatabaseHistory | undefined> {
  const text = await redis.get(createName(databaseId))
  return text === null ? undefined : JSON.parse(text)
}

/** Keeps the history that agrees with the records in Redis. */
export async function storeKnownHistory(
  redis: RedisClient,
  databaseId: string,
  { system, timeline, lsn, newest }: DatabaseHistory,
): Promise<void> {
  await redis.set(createName(databaseId), JSON.stringify({ system, timeline, lsn, newest }))
}
