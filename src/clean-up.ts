import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import type { Logger } from 'pino'
import { deleteExpiredRecords } from './idempotency/postgres-store.ts'
import { releaseOldKeys } from './orders/release-keys.ts'
import { inSession } from './storage/postgres.ts'

/** What a clean-up did. */
export interface CleanUpReport {
  releasedKeys: number
  deletedRecords: number
}

/** Rows a statement: its row locks are held for some milliseconds. */
const BATCH_SIZE = 500
/** After each batch, so that the clean-up takes no more than a part of the database's time. */
const PAUSE_MS = 20

/** Keys and records end days and hours after their time has begun: an hour more is no difference. */
const HOUR_MS = 3_600_000

/** Any number that no other user of the database locks: the letters "clean" in hexadecimal. */
const CLEAN_UP_LOCK = 0x636c65616e

/**
 * Releases the keys of orders older than `keyRetentionDays` (0: of none) and deletes the expired
 * idempotency records, in small batches, one instance at a time.
 *
 * @param databaseUrl `postgres://…`, to which it opens one connection of its own
 * @returns what it did; undefined if another instance is at it
 * @param signal ends it after the batch at work
 * @throws if Postgres fails; what was done until then is done
 */
export async function cleanUp(
  databaseUrl: string,
  { keyRetentionDays }: { keyRetentionDays: number },
  signal?: AbortSignal,
): Promise<CleanUpReport | undefined> {
  return inSession(databaseUrl, async (client) => {
    const database = drizzle(client)
    const [lock] = await database.execute<{ held: boolean }>(
      sql`select pg_try_advisory_lock(${CLEAN_UP_LOCK}) as held`,
    )
    if (!lock?.held) return undefined
    const releaseBatch = (limit: number) => releaseOldKeys(database, keyRetentionDays, limit)
    const deleteBatch = (limit: number) => deleteExpiredRecords(database, limit)
    const report = {
      releasedKeys: keyRetentionDays === 0 ? 0 : await inBatches(releaseBatch, signal),
      deletedRecords: await inBatches(deleteBatch, signal),
    }
    // A session that fails ends its lock, too, but only once Postgres has noticed.
    await database.execute(sql`select pg_advisory_unlock(${CLEAN_UP_LOCK})`)
    return report
  })
}

/**
 * Runs the clean-up again and again, first after one interval.
 *
 * @returns what stops it, once the batch that is at work has ended
 */
export function scheduleCleanUp(
  run: (signal: AbortSignal) => Promise<CleanUpReport | undefined>,
  log: Logger,
  everyMs = HOUR_MS,
): () => Promise<void> {
  const stopping = new AbortController()
  let running: Promise<void> | undefined
  const timer = setInterval(() => {
    running ??= run(stopping.signal)
      .then(
        (report) => {
          if (report) log.info(report, 'cleaned up')
        },
        (error: unknown) => log.warn({ err: error }, 'the clean-up failed; the next one goes on'),
      )
      .finally(() => {
        running = undefined
      })
  }, everyMs)
  return async () => {
    clearInterval(timer)
    stopping.abort()
    await running
  }
}

async function inBatches(
  batch: (limit: number) => Promise<number>,
  signal: AbortSignal | undefined,
): Promise<number> {
  let total = 0
  for (;;) {
    const done = await batch(BATCH_SIZE)
    total += done
    if (done < BATCH_SIZE || signal?.aborted) return total
    await sleep(PAUSE_MS)
  }
}
