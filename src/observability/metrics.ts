/** What one process counts. */

import cluster from 'node:cluster'
import type { Outcome } from '@order-once/idempotency'
import { fastifyPlugin } from 'fastify-plugin'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import { DEFAULT_CLIENT_ID } from '../clients/clients-file.ts'
import { reportToPrimary } from './cluster-metrics.ts'
import { addProcessMetrics } from './process-metrics.ts'

declare module 'fastify' {
  interface FastifyInstance {
    metrics: Metrics
  }
}

/** Sizes of inserts, up to the largest that may be set. */
const BATCH_SIZES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]

/** Upper bounds in seconds; the last ones are for duplicates that wait. */
const DURATIONS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

export interface Metrics {
  registry: Registry
  /** Returns the metrics of the whole service, in the text format of Prometheus. */
  read(): Promise<string>
  /**
   * Counts a response.
   *
   * @param route the pattern of its path: paths that clients make up are `unmatched`
   * @param seconds since the request arrived
   * @param outcome of its key and the id of its client, if it had them
   */
  countResponse(
    route: string,
    status: number,
    seconds: number,
    outcome: Outcome | undefined,
    client: string | undefined,
  ): void
  /** Counts a signed request beyond the limit. */
  countRateLimited(): void
  /** Counts a request without a valid signature. */
  countSignatureFailure(): void
  /** Counts a claim that was released without a stored response. */
  countRelease(): void
  /** Sets how many duplicates wait for the first request under their key. */
  setWaiting(count: number): void
  /** Counts an insert of so many orders. */
  countInsert(orders: number): void
  /** Counts a row from Postgres that belongs to another query. */
  countRowMismatch(): void
}

/** Starts to count, from zero, on a registry of its own. */
export function createMetrics(): Metrics {
  const registry = new Registry()
  const registers = [registry]
  const durations = new Histogram({
    name: 'http_request_duration_seconds',
    help: 'Time from the arrival of requests until their responses, by route and status',
    labelNames: ['route', 'status'],
    buckets: DURATIONS,
    registers,
  })
  const outcomes = new Counter({
    name: 'order_once_idempotency_outcomes_total',
    help: 'Requests with a key, by how they ended; those that failed (5xx) are not counted',
    labelNames: ['client', 'outcome'],
    registers,
  })
  const allOutcomes: Record<Outcome, true> = {
    new: true,
    replayed_cache: true,
    replayed_database: true,
    waited: true,
    mismatch: true,
    in_progress: true,
  }
  for (const outcome of Object.keys(allOutcomes))
    outcomes.inc({ client: DEFAULT_CLIENT_ID, outcome }, 0)
  const rateLimited = new Counter({
    name: 'order_once_rate_limited_total',
    help: 'Signed requests that were refused by the rate limit',
    registers,
  })
  const signatureFailures = new Counter({
    name: 'order_once_signature_failures_total',
    help: 'Requests without a valid signature, refused with 401 or 429',
    registers,
  })
  const releases = new Counter({
    name: 'order_once_claims_released_total',
    help: 'Claims released without a stored response',
    registers,
  })
  const waiting = new Gauge({
    name: 'order_once_waiting_duplicates',
    help: 'Duplicates that wait for the first request under their key',
    registers,
  })
  const rowMismatches = new Counter({
    name: 'order_once_row_mismatches_total',
    help: 'Rows from Postgres that belong to another query, and were refused',
    registers,
  })
  const batchSizes = new Histogram({
    name: 'order_once_insert_batch_size',
    help: 'Orders per insert into Postgres',
    buckets: BATCH_SIZES,
    registers,
  })

  return {
    registry,
    read: cluster.isWorker ? reportToPrimary(registry) : () => registry.metrics(),
    countResponse: (route, status, seconds, outcome, client) => {
      durations.observe({ route, status }, seconds)
      if (outcome && client && status < 500) outcomes.inc({ client, outcome })
    },
    countRateLimited: () => rateLimited.inc(),
    countSignatureFailure: () => signatureFailures.inc(),
    countRelease: () => releases.inc(),
    setWaiting: (count) => waiting.set(count),
    countInsert: (orders) => batchSizes.observe(orders),
    countRowMismatch: () => rowMismatches.inc(),
  }
}

/** Decorates the app with `metrics`, and counts each response when it is made. */
export const metrics = fastifyPlugin(
  async (app) => {
    const metrics = createMetrics()
    addProcessMetrics(metrics.registry)
    app.decorate('metrics', metrics)

    // When it is made rather than when it is sent: a client that disconnects counts, and how slowly
    // clients read does not.
    app.addHook('onSend', (request, reply, _payload, done) => {
      metrics.countResponse(
        request.routeOptions.url ?? 'unmatched',
        reply.statusCode,
        reply.elapsedTime / 1000,
        request.idempotency?.outcome,
        request.client?.id,
      )
      done()
    })
  },
  { name: 'metrics' },
)
