/** The figures of a row, and the table of them. */
import type { Findings } from '../faults/findings.ts'
import type { Exchange } from '../faults/history.ts'

/** Of one row. Times in ms. */
export interface Figures {
  row: string
  /** whether acknowledged orders may be missing until the reconciliation */
  mayLoseOrders: boolean
  orders: number
  /** the longest time without a new order, the time until the promotion included */
  gapMs: number
  /** from the promotion to the first new order, of the slower instance */
  gapAfterPromotionMs: number
  /** from the promotion until `/health/ready` of all instances says `ready`: with Postgres and Redis */
  readyAfterPromotionMs: number
  /** requests that ended without a 201 or a 409 */
  errors: number
  /** acknowledged orders that were not in Postgres before the reconciliation */
  lost: number
  restored: number
  findings: Findings
}

/** The service moves within this time after a promotion. */
const MAX_GAP_AFTER_PROMOTION_MS = 2_000

/** The same, and the age of the check behind `/health/ready`, after which it may first fail once more. */
const MAX_READY_AFTER_PROMOTION_MS = 5_000

/** Measures the gaps. @param from before the failover */
export function measureGaps(
  exchanges: Exchange[],
  { from, promotedAt }: { from: number; promotedAt: number },
): Pick<Figures, 'gapMs' | 'gapAfterPromotionMs'> {
  const created = exchanges.filter((exchange) => exchange.created?.isReplay === false)
  const times = created.map(({ endedAt }) => endedAt).filter((time) => time >= from)
  const gaps = times.map((time, index) => time - (times[index - 1] ?? from))
  const instances = [...new Set(exchanges.map(({ instance }) => instance))]
  const delays = instances.map((instance) => {
    const first = created.find(
      (exchange) => exchange.instance === instance && exchange.endedAt >= promotedAt,
    )
    return (first?.endedAt ?? Number.POSITIVE_INFINITY) - promotedAt
  })
  return { gapMs: Math.max(0, ...gaps), gapAfterPromotionMs: Math.max(...delays) }
}

/** Names what misses its target; empty if the row has passed. */
export function findMisses(figures: Figures): string[] {
  const { findings, mayLoseOrders, lost, gapAfterPromotionMs, readyAfterPromotionMs } = figures
  const misses = Object.entries(findings).flatMap(([kind, found]) =>
    (found as string[]).slice(0, 3).map((example) => `${kind}: ${example}`),
  )
  if (!mayLoseOrders && lost > 0) misses.push(`${lost} orders were lost before the reconciliation`)
  if (gapAfterPromotionMs > MAX_GAP_AFTER_PROMOTION_MS) {
    misses.push(`${formatSeconds(gapAfterPromotionMs)} s from the promotion to a new order`)
  }
  if (readyAfterPromotionMs > MAX_READY_AFTER_PROMOTION_MS) {
    misses.push(`${formatSeconds(readyAfterPromotionMs)} s from the promotion to ready`)
  }
  return misses
}

const COLUMNS = [
  'what happens',
  'orders',
  'longest gap, s',
  'gap after the promotion, s',
  'ready after the promotion, s',
  'errors',
  'lost',
  'restored',
  'lost after that',
  'doubled',
  'invented',
]

/** Formats the table of docs/reliability.md. */
export function formatTable(rows: Figures[]): string {
  const lines = rows.map((row) => [
    row.row,
    row.orders,
    formatSeconds(row.gapMs),
    formatSeconds(row.gapAfterPromotionMs),
    formatSeconds(row.readyAfterPromotionMs),
    row.errors,
    row.lost,
    row.restored,
    row.findings.lost.length,
    row.findings.doubled.length,
    row.findings.invented.length,
  ])
  return [COLUMNS, COLUMNS.map(() => '---'), ...lines]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n')
}

const formatSeconds = (ms: number) => (ms / 1000).toFixed(1)
