import type { Instance } from './instance.ts'
import { count, type Exchange, type Journal, TIMED_OUT } from './journal.ts'
import { measureRecoveries, type Recovery } from './recovery.ts'
import type { Occurrence } from './schedule.ts'
import type { Verdict } from './verdict.ts'

/** A failure this soon after a fault of Postgres or of its instance may be owed to it, in ms. */
const AFTERMATH_MS = 1_000

/** What was done in a run, and what came of it; times in ms. */
export interface Report {
  seed: number
  seconds: number
  orders: number
  attempts: number
  retries: number
  replays: number
  changedRefused: number
  /** requests that failed though neither Postgres nor their instance was disturbed */
  failuresInQuiet: Record<string, number>
  timeouts: number
  longestWaitMs: number
  /** from the end of all faults until every order that was sent till then was answered */
  settledMs: number
  recoveries: Recovery[]
  /** the evidence; times on one clock */
  occurrences: Occurrence[]
  exchanges: Exchange[]
  results: Record<string, number>
  changedResults: Record<string, number>
  /** what the instances warned of */
  logged: Record<string, number>
  verdict: Verdict
}

export function createReport(run: {
  seed: number
  seconds: number
  healedAt: number
  journal: Journal
  occurrences: Occurrence[]
  instances: Instance[]
  verdict: Verdict
}): Report {
  const { seed, seconds, healedAt, journal, occurrences, instances, verdict } = run
  const { exchanges, results, changedResults, retries } = journal
  const orders = [...journal.orders.values()]
  const logged = new Map<string, number>()
  for (const [text, count] of instances.flatMap((instance) => [...instance.logged])) {
    logged.set(text, (logged.get(text) ?? 0) + count)
  }
  return {
    seed,
    seconds,
    orders: orders.length,
    attempts: exchanges.length,
    retries,
    replays: orders.reduce((sum, order) => sum + order.replays, 0),
    changedRefused: changedResults.get('409 idempotency-key-reused') ?? 0,
    failuresInQuiet: failuresInQuiet(exchanges, occurrences),
    timeouts: (results.get(TIMED_OUT) ?? 0) + (changedResults.get(TIMED_OUT) ?? 0),
    longestWaitMs: exchanges.reduce(
      (longest, { beganAt, endedAt }) => Math.max(longest, endedAt - beganAt),
      0,
    ),
    settledMs: journal.allAnsweredAt - healedAt,
    recoveries: measureRecoveries(occurrences, exchanges),
    occurrences,
    exchanges,
    results: Object.fromEntries(results),
    changedResults: Object.fromEntries(changedResults),
    logged: Object.fromEntries([...logged].sort(([, a], [, b]) => b - a)),
    verdict,
  }
}

function failuresInQuiet(exchanges: Exchange[], occurrences: Occurrence[]): Record<string, number> {
  const counts = new Map<string, number>()
  for (const { instance, beganAt, endedAt, result } of exchanges) {
    const isDisturbed = (fault: Occurrence) =>
      fault.target !== 'redis' &&
      (fault.instance ?? instance) === instance &&
      fault.beganAt <= endedAt &&
      fault.undoneAt + AFTERMATH_MS >= beganAt
    if (!/^(201|409)/.test(result) && !occurrences.some(isDisturbed)) count(counts, result)
  }
  return Object.fromEntries(counts)
}

/** The examples shown of each finding; `--json` has them all. */
const EXAMPLES = 5

/** The report as a person reads it. */
export function printReport(report: Report): void {
  const { verdict } = report
  const rows: [string, string | number][] = [
    ['seed', report.seed],
    ['orders', report.orders],
    ['attempts', report.attempts],
    ['retries', report.retries],
    ['replays checked', report.replays],
    ['changed bodies refused', report.changedRefused],
    ['lost', verdict.lost.length],
    ['doubled', verdict.doubled.length],
    ['invented', verdict.invented.length],
    ['time-outs', report.timeouts],
    ['longest wait of a client', inSeconds(report.longestWaitMs)],
    ['all answered after the last fault', inSeconds(report.settledMs)],
  ]
  console.log(`\n${table(rows)}`)
  console.log('\nfault                          count    hits   longest recovery')
  for (const { kind, count, hits, longestMs } of report.recoveries) {
    const longest = longestMs === undefined ? 'not seen alone' : inSeconds(longestMs)
    console.log(
      `${kind.padEnd(30)} ${`${count}`.padStart(5)} ${`${hits}`.padStart(7)}   ${longest}`,
    )
  }
  console.log(`\nanswers\n${table(Object.entries(report.results))}`)
  console.log(
    `\nfailures while neither Postgres nor the instance was disturbed\n${table(Object.entries(report.failuresInQuiet))}`,
  )
  console.log(`\nanswers to changed bodies\n${table(Object.entries(report.changedResults))}`)
  for (const [what, found] of Object.entries(verdict) as [string, string[]][]) {
    if (found.length === 0) continue
    console.log(`\nFAILED: ${what}: ${found.length}`)
    for (const example of found.slice(0, EXAMPLES)) console.log(`  ${example}`)
  }
}

function table(rows: [string, string | number][]): string {
  return rows.map(([name, value]) => `${name.padEnd(36)} ${value}`).join('\n')
}

function inSeconds(ms: number): string {
  return Number.isFinite(ms) ? `${(ms / 1000).toFixed(2)} s` : 'never'
}
