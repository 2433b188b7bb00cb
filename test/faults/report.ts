/** The report of a run, as data and as text. */
import { TIMED_OUT } from './clients.ts'
import { countResults, type Findings } from './findings.ts'
import { groupBy } from './group-by.ts'
import { type Exchange, REUSED } from './history.ts'
import type { Instance } from './instance.ts'
import { measureRecoveries, type Recovery } from './recovery.ts'
import type { Occurrence } from './schedule.ts'

/** A failure this soon after a fault of Postgres or of its instance may be due to it. */
const AFTERMATH_MS = 1_000

/** Times in ms. */
export interface Report {
  seed: number
  seconds: number
  orders: number
  requests: number
  replays: number
  /** refusals of another body under a used key */
  refused: number
  timeouts: number
  longestRequestMs: number
  /** from the end of all faults until every order had its 201 */
  lastOrderMs: number
  recoveries: Recovery[]
  results: Record<string, number>
  /** failures of requests while neither Postgres nor their instance had a fault */
  failuresWithoutFault: Record<string, number>
  /** how often each warning or error was logged */
  warnings: Record<string, number>
  findings: Findings
  /** the evidence */
  occurrences: Occurrence[]
  exchanges: Exchange[]
}

export function createReport(run: {
  seed: number
  seconds: number
  faultsEndedAt: number
  exchanges: Exchange[]
  occurrences: Occurrence[]
  instances: Instance[]
  findings: Findings
}): Report {
  const { seed, seconds, faultsEndedAt, exchanges, occurrences, instances, findings } = run
  const results = countResults(exchanges)
  const byKey = [...groupBy(exchanges, ({ key }) => key).values()]
  const finishedAt = byKey.map((ofKey) =>
    Math.min(...ofKey.filter(({ created }) => created).map(({ endedAt }) => endedAt)),
  )
  const warnings = new Map<string, number>()
  for (const [text, count] of instances.flatMap((instance) => [...instance.warnings])) {
    warnings.set(text, (warnings.get(text) ?? 0) + count)
  }
  return {
    seed,
    seconds,
    orders: byKey.length,
    requests: exchanges.length,
    replays: exchanges.filter(({ created }) => created?.isReplay).length,
    refused: results[REUSED] ?? 0,
    timeouts: results[TIMED_OUT] ?? 0,
    longestRequestMs: max(exchanges.map(({ sentAt, endedAt }) => endedAt - sentAt)),
    lastOrderMs: max(finishedAt.map((at) => at - faultsEndedAt)),
    recoveries: measureRecoveries(occurrences, exchanges),
    results,
    failuresWithoutFault: countResults(
      exchanges.filter((exchange) => isFailureWithoutFault(exchange, occurrences)),
    ),
    warnings: Object.fromEntries([...warnings].sort(([, a], [, b]) => b - a)),
    findings,
    occurrences,
    exchanges,
  }
}

function isFailureWithoutFault(exchange: Exchange, occurrences: Occurrence[]): boolean {
  const { instance, sentAt, endedAt, result } = exchange
  const isDisturbed = (fault: Occurrence) =>
    fault.target !== 'redis' &&
    (fault.instance ?? instance) === instance &&
    fault.startedAt <= endedAt &&
    fault.restoredAt + AFTERMATH_MS >= sentAt
  return !/^(201|409)/.test(result) && !occurrences.some(isDisturbed)
}

function max(numbers: number[]): number {
  return numbers.reduce((a, b) => Math.max(a, b), 0)
}

/** The examples printed of each finding; `--json` writes them all. */
const EXAMPLES = 5

/** Prints the report for a person. */
export function printReport(report: Report): void {
  const { findings } = report
  printTable('', {
    seed: report.seed,
    orders: report.orders,
    requests: report.requests,
    replays: report.replays,
    'other bodies refused': report.refused,
    ...Object.fromEntries(Object.entries(findings).map(([name, found]) => [name, found.length])),
    'time-outs': report.timeouts,
    'longest request': formatSeconds(report.longestRequestMs),
    'last order done after the faults': formatSeconds(report.lastOrderMs),
  })
  console.log('\nfault                            count  effects  longest recovery')
  for (const { kind, count, effects, longestMs } of report.recoveries) {
    const longest = longestMs === undefined ? 'always overlapped' : formatSeconds(longestMs)
    const columns = [kind.padEnd(32), `${count}`.padStart(5), `${effects}`.padStart(8)]
    console.log(`${columns.join(' ')}  ${longest}`)
  }
  printTable('results', report.results)
  printTable('failures without a fault of Postgres or of the instance', report.failuresWithoutFault)
  for (const [name, found] of Object.entries(findings)) {
    if (found.length === 0) continue
    console.log(`\nFAILED: ${name}: ${found.length}`)
    for (const example of found.slice(0, EXAMPLES)) console.log(`  ${example}`)
  }
}

function printTable(title: string, rows: Record<string, string | number>): void {
  const lines = Object.entries(rows).map(([name, value]) => `${name.padEnd(36)} ${value}`)
  console.log(`\n${[...(title ? [title] : []), ...(lines.length ? lines : ['none'])].join('\n')}`)
}

function formatSeconds(ms: number): string {
  return Number.isFinite(ms) ? `${(ms / 1000).toFixed(2)} s` : 'never'
}
