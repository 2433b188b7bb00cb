import { Counter, Histogram, Registry } from 'prom-client'
import type { Outcome } from '../http/idempotent-request.ts'
import type { RequestMetrics } from '../http/measure.ts'
import { RequestDurations } from './request-durations.ts'

/** Sizes of inserts, up to the most that may be set. */
const BATCH_SIZES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]

/** What one process counts, and the registry from which it is read. */
export interface Metrics extends RequestMetrics {
  registry: Registry
  /** The metrics of the whole service, as Prometheus reads them. */
  read(): Promise<string>
  /** Counts a claim that was given back without an answer. */
  claimAbandoned(): void
  /** Counts an insert. @param size its orders */
  batchSent(size: number): void
  /** Counts a row from Postgres that was not the one asked for. */
  rowMismatched(): void
}

/** Makes what reads the metrics of all processes of the service, of which one has this registry. */
export type MakeReader = (registry: Registry) => () => Promise<string>

/**
 * Starts to count, from zero, on a registry of its own.
 *
 * @param makeReader by default for a service of one process
 */
export function createMetrics(
  makeReader: MakeReader = (registry) => () => registry.metrics(),
): Metrics {
  const registry = new Registry()
  const registers = [registry]
  const durations = new RequestDurations(registry)

  const outcomes: Record<Outcome, number> = {
    new: 0,
    replayed_cache: 0,
    replayed_database: 0,
    waited: 0,
    mismatch: 0,
    in_progress: 0,
  }
  new Counter({
    name: 'order_once_idempotency_outcomes_total',
    help: 'How requests with a key ended, other than by a failure (5xx)',
    labelNames: ['outcome'],
    registers,
    collect() {
      this.reset()
      for (const [outcome, count] of Object.entries(outcomes)) this.inc({ outcome }, count)
    },
  })
  const rateLimited = new Counter({
    name: 'order_once_rate_limited_total',
    help: 'Signed requests that were refused beyond the rate limit',
    registers,
  })
  const signatureFailures = new Counter({
    name: 'order_once_signature_failures_total',
    help: 'Requests without a right signature, those included that were told to wait for it',
    registers,
  })
  const claimsAbandoned = new Counter({
    name: 'order_once_claims_abandoned_total',
    help: 'Claims that were given back without an answer, most because their request failed',
    registers,
  })
  const rowMismatches = new Counter({
    name: 'order_once_row_mismatches_total',
    help: 'Rows from Postgres that were not the ones asked for, and were refused',
    registers,
  })
  const batchSizes = new Histogram({
    name: 'order_once_insert_batch_size',
    help: 'How many orders went to Postgres in one insert',
    buckets: BATCH_SIZES,
    registers,
  })

  return {
    registry,
    read: makeReader(registry),
    answered: (route, status, seconds, outcome) => {
      durations.observe(route, status, seconds)
      if (outcome && status < 500) outcomes[outcome]++
    },
    rateLimited: () => rateLimited.inc(),
    signatureFailed: () => signatureFailures.inc(),
    claimAbandoned: () => claimsAbandoned.inc(),
    batchSent: (size) => batchSizes.observe(size),
    rowMismatched: () => rowMismatches.inc(),
  }
}
