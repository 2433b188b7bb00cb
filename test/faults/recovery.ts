/** How the service recovered from the faults. */
import { groupBy } from './group-by.ts'
import type { Exchange } from './history.ts'
import type { Occurrence } from './schedule.ts'

/** How often a kind of fault happened, and the recovery from it. */
export interface Recovery {
  kind: string
  count: number
  effects: number
  /**
   * the longest time, in ms, from the end of such a fault to the first 201 of a request sent after
   * it, over all instances; undefined: other faults always overlapped
   */
  longestMs: number | undefined
}

/**
 * Measures the recovery from each fault on each instance, unless a fault of another target overlaps.
 * Those of Redis do not count: orders go on without it.
 */
export function measureRecoveries(occurrences: Occurrence[], exchanges: Exchange[]): Recovery[] {
  const created = groupBy(
    exchanges.filter(({ result }) => result === '201'),
    ({ instance }) => instance,
  )
  const recoveries = new Map<string, Recovery>()
  for (const occurrence of occurrences) {
    const { kind, effects, endedAt } = occurrence
    const recovery = recoveries.get(kind) ?? { kind, count: 0, effects: 0, longestMs: undefined }
    recoveries.set(kind, recovery)
    recovery.count++
    recovery.effects += effects
    for (const [instance, successes] of created) {
      if ((occurrence.instance ?? instance) !== instance) continue
      const later = successes.filter(({ sentAt }) => sentAt >= endedAt)
      const recoveredAt = Math.min(...later.map((exchange) => exchange.endedAt))
      const isOverlapping = (other: Occurrence) =>
        other.target !== occurrence.target &&
        (other.target === 'postgres' || other.instance === instance) &&
        other.startedAt < recoveredAt &&
        other.restoredAt > endedAt
      if (occurrences.some(isOverlapping)) continue
      recovery.longestMs = Math.max(recovery.longestMs ?? 0, recoveredAt - endedAt)
    }
  }
  return [...recoveries.values()].sort((a, b) => a.kind.localeCompare(b.kind))
}
