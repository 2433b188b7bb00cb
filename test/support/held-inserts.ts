import type { Sql, TransactionSql } from 'postgres'
import { emptyDatabase } from './stores.ts'

/** Holds every insert into the test file's emptied database until it is released. */
export function holdInserts() {
  return hold((transaction) => transaction`lock table orders in share mode`, 'relation')
}

/**
 * Holds the insert of one key until it is released: Postgres has it, and carries it out then, whoever
 * still waits for its answer.
 */
export function holdInsertOf(key: string) {
  return hold(
    (transaction) => transaction`
      insert into orders (id, user_id, item, amount, idempotency_key, request_fingerprint)
      values (gen_random_uuid(), 'in the way', 'i', 1, ${key}, '')`,
    'transactionid',
  )
}

/** Takes hold in a transaction, which ends without effect when it lets go. */
async function hold(
  take: (transaction: TransactionSql) => Promise<unknown>,
  lockType: 'relation' | 'transactionid',
) {
  const { url, sql } = await emptyDatabase()
  let letGo = () => {}
  const lettingGo = new Promise<void>((resolve) => {
    letGo = resolve
  })
  let taken = () => {}
  const isTaken = new Promise<void>((resolve) => {
    taken = resolve
  })
  const transaction = sql
    .begin(async (held) => {
      await take(held)
      taken()
      await lettingGo
      await held`rollback`
    })
    .catch(() => {})
  await isTaken
  return {
    url,
    sql,
    /** whether an insert has come as far as it is let */
    isWaiting: () => isWaiting(sql, lockType),
    release: async () => {
      letGo()
      await transaction
    },
  }
}

async function isWaiting(sql: Sql, lockType: string): Promise<boolean> {
  const [row] = await sql`
    select count(*)::int as count from pg_locks
    join pg_stat_activity using (pid)
    where not granted and locktype = ${lockType} and datname = current_database()`
  return row?.count > 0
}
