/** Detects that Postgres was failed over or restored, so that acknowledged orders may be missing. */
import { setTimeout as sleep } from 'node:timers/promises'
import { withDeadline } from '@order-once/idempotency/batching'
import type { FastifyBaseLogger } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { Gauge, type Registry } from 'prom-client'
import { QUERY_TIMEOUT_MS } from './limits.ts'
import {
  isContinued,
  isHistoryHidden,
  readDatabaseHistory,
  readKnownHistory,
  storeKnownHistory,
} from './stores/database-history.ts'
import { findRivals } from './stores/postgres-primary.ts'
import { withDedicatedConnection } from './stores/postgres-session.ts'
import type { Stores } from './stores/prepare.ts'
import { connectToRedis } from './stores/redis-session.ts'

/** A person reads the alert: some seconds more make no difference. */
const CHECK_INTERVAL_MS = 10_000

/**
 * Compares the history of the database with the last one that is stored in Redis. If the present history
 * continues that one, stores it instead.
 *
 * @returns what has changed; undefined: the history continues, or is the first one
 * @throws if a store fails
 */
export async function findHistoryChange(
  { databaseUrl, databaseId }: Stores,
  redisUrl: string,
): Promise<string | undefined> {
  const redis = await connectToRedis(redisUrl)
  try {
    // First Redis: another process may store a later moment than the one that is read here.
    const known = await readKnownHistory(redis, databaseId)
    const present = await withDedicatedConnection(databaseUrl, (client) =>
      withDeadline(readDatabaseHistory(client), QUERY_TIMEOUT_MS, 'no response to a query'),
    )
    const newest = known?.newest ?? known?.timeline ?? ''
    if (known && (!isContinued(known, present) || present.timeline < newest)) {
      if (known.system !== present.system) return 'it is another server than before'
      // A start does not go back behind it.
      if (present.timeline > newest) {
        await storeKnownHistory(redis, databaseId, { ...known, newest: present.timeline })
      }
      const before = present.timeline < newest ? newest : known.timeline
      if (before === present.timeline) return `its log ended at ${known.lsn} before`
      return `timeline ${Number.parseInt(present.timeline, 16)}, before ${Number.parseInt(before, 16)}`
    }
    const rivals = await findRivals(databaseUrl)
    if (rivals) return rivals
    await storeKnownHistory(redis, databaseId, present)
    return undefined
  } finally {
    redis.disconnect()
  }
}

/**
 * Checks at intervals, until the app closes. What a check finds is in the metric until `order-once reconcile`
 * was run, and in the log once.
 */
export const failoverWatch = fastifyPlugin(
  async (app, { registry, redisUrl }: { registry: Registry; redisUrl: string | undefined }) => {
    const gauge = new Gauge({
      name: 'order_once_reconcile_needed',
      help: 'Whether Postgres was failed over or restored since the last order-once reconcile (1)',
      aggregator: 'max',
      registers: [registry],
    })
    if (redisUrl === undefined) return // no records are left when Postgres loses orders
    const closing = new AbortController()
    void watch(() => findHistoryChange(app.stores, redisUrl), gauge, app.log, closing.signal)
    app.addHook('onClose', async () => closing.abort())
  },
  { name: 'failover-watch', dependencies: ['stores'] },
)

async function watch(
  check: () => Promise<string | undefined>,
  gauge: Gauge,
  log: FastifyBaseLogger,
  signal: AbortSignal,
): Promise<void> {
  let logged: string | undefined
  let isHiddenLogged = false
  while (!signal.aborted) {
    try {
      const change = await check()
      gauge.set(change === undefined ? 0 : 1)
      if (change !== undefined && change !== logged) {
        log.error(
          `Postgres was failed over or restored (${change}); acknowledged orders may be missing: run order-once reconcile`,
        )
      }
      logged = change
    } catch (error) {
      // The health check reports a store that is down.
      const isHidden = isHistoryHidden(error)
      log[isHidden && !isHiddenLogged ? 'warn' : 'debug'](
        { err: error },
        'the history of the database could not be read: failovers are not detected',
      )
      isHiddenLogged ||= isHidden
    }
    await sleep(CHECK_INTERVAL_MS, undefined, { signal, ref: false }).catch(() => {})
  }
}
