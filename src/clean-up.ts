/** The clean-up: releases the keys of old orders and deletes expired idempotency records. */
import { setTimeout as sleep } from 'node:timers/promises'
import { deleteExpiredRecords, type RunQuery } from '@order-once/idempotency'
import type { FastifyBaseLogger } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { releaseOldKeys } from './orders/key-retention.ts'
import type { Settings } from './settings.ts'
import { LOCKS } from './stores/locks.ts'
import { withDedicatedConnection } from './stores/postgres-session.ts'

/** What a clean-up did. */
export interface CleanUpReport {
  releasedKeys: number
  deletedRecords: number
}

/** Rows per statement: its row locks are held for some milliseconds. */
const BATCH_SIZE = 500
/** After each batch, so that the clean-up takes only a part of the database's time. */
const PAUSE_MS = 20

/** Keys are kept for days and records for hours: an hour more makes no difference. */
const INTERVAL_MS = 3_600_000

/**
 * Releases the keys of orders older than `keyRetentionDays` (0: of none) and deletes the expired
 * idempotency records, in small batches, one instance at a time.
 *
 * @param databaseUrl `postgres://…`, to which it opens one dedicated connection
 * @param signal ends it after the current batch
 * @returns what it did; undefined if another instance is cleaning up
 * @throws if Postgres fails; batches until then have taken effect
 */
export async function cleanUp(
  databaseUrl: string,
  { keyRetentionDays }: Pick<Settings, 'keyRetentionDays'>,
  signal?: AbortSignal,
): Promise<CleanUpReport | undefined> {
  return withDedicatedConnection(databaseUrl, async (client) => {
    const runQuery: RunQuery = (text, values) => client.unsafe(text, values as never[])
    const [lock] = await client`select pg_try_advisory_lock(${LOCKS.cleanUp}) as is_held`
    if (!lock?.is_held) return undefined
    const releaseBatch = (limit: number) => releaseOldKeys(runQuery, keyRetentionDays, limit)
    const deleteBatch = (limit: number) => deleteExpiredRecords(runQuery, limit)
    const report = {
      releasedKeys: keyRetentionDays === 0 ? 0 : await repeatBatch(releaseBatch, signal),
      deletedRecords: await repeatBatch(deleteBatch, signal),
    }
    // The end of the session releases the lock as well, but only once Postgres has noticed.
    await client`select pg_advisory_unlock(${LOCKS.cleanUp})`
    return report
  })
}

/**
 * Runs the clean-up at each interval, first after one interval.
 *
 * @returns a function that stops it, and waits for the current batch
 */
export function scheduleCleanUp(
  run: (signal: AbortSignal) => Promise<CleanUpReport | undefined>,
  log: FastifyBaseLogger,
  intervalMs = INTERVAL_MS,
): () => Promise<void> {
  const stopping = new AbortController()
  let running: Promise<void> | undefined
  const timer = setInterval(() => {
    running ??= run(stopping.signal)
      .then(
        (report) => {
          if (report) log.info(report, 'cleaned up')
        },
        (error: unknown) => log.warn({ err: error }, 'the clean-up failed; it runs again later'),
      )
      .finally(() => {
        running = undefined
      })
  }, intervalMs)
  return async () => {
    clearInterval(timer)
    stopping.abort()
    await running
  }
}

/** Cleans up at intervals, until the app closes. */
export const scheduledCleanUp = fastifyPlugin(
  async (app, settings: Pick<Settings, 'keyRetentionDays'>) => {
    const { databaseUrl } = app.stores
    app.addHook(
      'onClose',
      scheduleCleanUp((signal) => cleanUp(databaseUrl, settings, signal), app.log),
    )
  },
  { name: 'clean-up', dependencies: ['stores'] },
)

async function repeatBatch(
  runBatch: (limit: number) => Promise<number>,
  signal: AbortSignal | undefined,
): Promise<number> {
  let total = 0
  for (;;) {
    const done = await runBatch(BATCH_SIZE)
    total += done
    if (done < BATCH_SIZE || signal?.aborted) return total
    await sleep(PAUSE_MS)
  }
}
