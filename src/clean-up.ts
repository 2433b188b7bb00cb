/** The clean-up: releases the keys of old orders and deletes expired idempotency records. */
import { setTimeout as sleep } from 'node:timers/promises'
import { deleteExpiredRecords, getRecordName, type RunQuery } from '@order-once/idempotency'
import { withDeadline } from '@order-once/idempotency/batching'
import type { FastifyBaseLogger } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { CLEAN_UP_CLOSE_TIMEOUT_MS } from './limits.ts'
import { releaseOldKeys } from './orders/key-retention.ts'
import type { Settings } from './settings.ts'
import { withDedicatedConnection } from './stores/postgres-session.ts'
import type { Stores } from './stores/prepare.ts'
import { createRedisClient, type RedisClient } from './stores/redis-client.ts'

/** What a clean-up did. */
export interface CleanUpReport {
  releasedKeys: number
  deletedRecords: number
}

/** Rows per statement: its row locks are held for some milliseconds. */
const BATCH_SIZE = 500
/** After each batch, so that the clean-up takes only a part of the database's time. */
const PAUSE_MS = 20

/** More than for a request: a batch has many commands, and no client waits for it. */
const REDIS_TIMEOUT_MS = 5_000

/** Keys are kept for days and records for hours: an hour more makes no difference. */
const INTERVAL_MS = 3_600_000

/**
 * Releases the keys of orders older than `keyRetentionDays` (0: of none), with the responses that Redis
 * has for them, and deletes the expired idempotency records; in small batches. Instances may clean up at
 * the same time: a row that one of them holds is skipped by the others.
 *
 * @param stores where it opens dedicated connections
 * @param signal ends it after the current batch
 * @throws if Postgres or Redis fails; batches until then have taken effect
 */
export async function cleanUp(
  { databaseUrl, redisUrl }: Pick<Stores, 'databaseUrl' | 'redisUrl'>,
  { keyRetentionDays }: Pick<Settings, 'keyRetentionDays'>,
  signal?: AbortSignal,
): Promise<CleanUpReport> {
  const redis = keyRetentionDays > 0 && redisUrl ? await connectToRedis(redisUrl) : undefined
  try {
    return await withDedicatedConnection(databaseUrl, async (client) => {
      const runQuery: RunQuery = (text, values) => client.unsafe(text, values as never[])
      const releaseBatch = async () => {
        // Not released if Redis fails: the response of a released key must not be replayed.
        await client`begin`
        const keys = await releaseOldKeys(runQuery, keyRetentionDays, BATCH_SIZE)
        // One key a command: on a cluster, several would be in different slots.
        await Promise.all(keys.map((key) => redis?.unlink(getRecordName(key))))
        await client`commit`
        return keys.length
      }
      const deleteBatch = () => deleteExpiredRecords(runQuery, BATCH_SIZE)
      return {
        releasedKeys: keyRetentionDays === 0 ? 0 : await repeatBatch(releaseBatch, signal),
        deletedRecords: await repeatBatch(deleteBatch, signal),
      }
    })
  } finally {
    redis?.disconnect()
  }
}

/**
 * Runs the clean-up at each interval. The first run comes after a random part of it, so that instances
 * that live for minutes clean up, too.
 *
 * @returns a function that stops it, and waits for the current batch
 */
export function scheduleCleanUp(
  run: (signal: AbortSignal) => Promise<CleanUpReport>,
  log: FastifyBaseLogger,
  { intervalMs = INTERVAL_MS, random = Math.random } = {},
): () => Promise<void> {
  const stopping = new AbortController()
  let running: Promise<void> | undefined
  let timer = setTimeout(runAndRepeat, random() * intervalMs)

  function runAndRepeat(): void {
    running = run(stopping.signal)
      .then(
        (report) => log.info(report, 'cleaned up'),
        (error: unknown) => log.warn({ err: error }, 'the clean-up failed; it runs again later'),
      )
      .finally(() => {
        if (!stopping.signal.aborted) timer = setTimeout(runAndRepeat, intervalMs)
      })
  }

  return async () => {
    clearTimeout(timer)
    stopping.abort()
    // A batch that waits for a lock ends with its connection, and takes no effect.
    const end = withDeadline(
      running ?? Promise.resolve(),
      CLEAN_UP_CLOSE_TIMEOUT_MS,
      'still running',
    )
    await end.catch((error) => log.warn(`the clean-up was cut off: ${error.message}`))
  }
}

/** Cleans up at intervals, until the app closes. */
export const scheduledCleanUp = fastifyPlugin(
  async (app, settings: Pick<Settings, 'keyRetentionDays'>) => {
    app.addHook(
      'onClose',
      scheduleCleanUp((signal) => cleanUp(app.stores, settings, signal), app.log),
    )
  },
  { name: 'clean-up', dependencies: ['stores'] },
)

/** @throws if Redis does not respond */
async function connectToRedis(url: string): Promise<RedisClient> {
  const redis = createRedisClient(url, {
    lazyConnect: true,
    commandTimeout: REDIS_TIMEOUT_MS,
    connectTimeout: REDIS_TIMEOUT_MS,
    retryStrategy: () => null,
  })
  await redis.connect()
  return redis
}

async function repeatBatch(
  runBatch: () => Promise<number>,
  signal: AbortSignal | undefined,
): Promise<number> {
  let total = 0
  for (;;) {
    const done = await runBatch()
    total += done
    if (done < BATCH_SIZE || signal?.aborted) return total
    await sleep(PAUSE_MS)
  }
}
