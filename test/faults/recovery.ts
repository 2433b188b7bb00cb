import type { Exchange } from './journal.ts'
import type { Occurrence } from './schedule.ts'

/** How often a kind of fault came, and how the service came back from it. */
export interface Recovery {
  kind: string
  count: number
  hits: number
  /**
   * the longest time, in ms, from the end of such a fault to the next success of a request begun
   * after it, over all instances; undefined: other faults were always in the way
   */
  longestMs: number | undefined
}

/**
 * Measures the recoveries, each through each instance. Where a fault of another target came in the
 * way, a recovery is not counted; but those of Redis are no excuse, nor is the next of the same
 * target, before which there was time enough.
 */
export function measureRecoveries(occurrences: Occurrence[], exchanges: Exchange[]): Recovery[] {
  const instances = [...new Set(exchanges.map(({ instance }) => instance))].sort()
  const successes = instances.map((instance) =>
    exchanges.filter((exchange) => exchange.instance === instance && exchange.result === '201'),
  )
  const recoveries = new Map<string, Recovery>()
  for (const occurrence of occurrences) {
    const { kind, hits, endedAt, instance: struck } = occurrence
    const recovery = recoveries.get(kind) ?? { kind, count: 0, hits: 0, longestMs: undefined }
    recoveries.set(kind, recovery)
    recovery.count++
    recovery.hits += hits
    for (const instance of struck === undefined ? instances : [struck]) {
      const recoveredAt = (successes[instance] ?? [])
        .filter(({ beganAt }) => beganAt >= endedAt)
        .reduce((least, exchange) => Math.min(least, exchange.endedAt), Number.POSITIVE_INFINITY)
      const isInTheWay = (other: Occurrence) =>
        other.target !== occurrence.target &&
        (other.target === 'postgres' || other.instance === instance) &&
        other.beganAt < recoveredAt &&
        other.undoneAt > endedAt
      if (occurrences.some(isInTheWay)) continue
      recovery.longestMs = Math.max(recovery.longestMs ?? 0, recoveredAt - endedAt)
    }
  }
  return [...recoveries.values()].sort((a, b) => a.kind.localeCompare(b.kind))
}
