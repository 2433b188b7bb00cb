/** Blocks inserts inside Postgres, by locks of another transaction. */
import type { Sql, TransactionSql } from 'postgres'
import { onTestFinished } from 'vitest'
import { createGate } from './gate.ts'
import { emptyDatabase } from './stores.ts'

/** Blocks every insert into the test file's emptied database. */
export function blockInserts() {
  return block((transaction) => transaction`lock table orders in share mode`, 'relation')
}

/**
 * Blocks the insert of one key. Postgres has received it, and completes it after `unblock`, also when its
 * client has disconnected.
 */
export function blockInsert(key: string) {
  return block(
    (transaction) => transaction`
      insert into orders (id, user_id, item, amount, idempotency_key, request_fingerprint)
      values (gen_random_uuid(), 'blocks', 'i', 1, ${key}, '')`,
    'transactionid',
  )
}

/** Takes a lock in a transaction, which `unblock` rolls back. */
async function block(
  lock: (transaction: TransactionSql) => Promise<unknown>,
  lockType: 'relation' | 'transactionid',
) {
  const { url, sql } = await emptyDatabase()
  const locked = createGate()
  const unblocked = createGate()
  onTestFinished(unblocked.open) // a test that fails must not block the next ones
  const transaction = sql
    .begin(async (session) => {
      await lock(session)
      locked.open()
      await unblocked.pass()
      await session`rollback`
    })
    .catch(() => {})
  await locked.pass()
  return {
    url,
    sql,
    /** whether an insert waits for the lock */
    isBlocking: () => isLockAwaited(sql, lockType),
    unblock: async () => {
      unblocked.open()
      await transaction
    },
  }
}

async function isLockAwaited(sql: Sql, lockType: string): Promise<boolean> {
  const [row] = await sql`
    select count(*)::int as count from pg_locks
    join pg_stat_activity using (pid)
    where not granted and locktype = ${lockType} and datname = current_database()`
  return row?.count > 0
}
