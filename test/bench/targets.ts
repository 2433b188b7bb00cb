import { type Kind, PGBENCH_CLIENTS } from './cases.ts'
import type { CaseResults, LargeTableResults, Run, TableCost } from './results.ts'
import { spreadOf } from './statistics.ts'

/** A ratio of two medians of the same run of the benchmark, and what it is to be. */
export interface Target {
  name: string
  bound: number
  /** `least`: the ratio is to be at least the bound */
  is: 'least' | 'most'
  /** undefined if one of the two was not measured */
  ratio: number | undefined
}

/** The ratios that matter; a speed alone tells more of the machine than of the service. */
export function targetsOf({ runs, processes, connections }: CaseResults): Target[] {
  const of = (kind: Kind, count: number, width = connections) =>
    runs.filter(
      (run) =>
        run.kind === kind &&
        run.processes === count &&
        run.connections === width &&
        run.faults.length === 0,
    )
  const rate = ({ perSecond }: Run) => perSecond
  const mean = (run: Run) => run.mean
  const created = of('new orders', processes)
  const counts = [1, processes]
  const inProcesses = (count: number) => (count === 1 ? '1 process' : `${count} processes`)
  const againstBare = (kind: Kind, bound: number) =>
    counts.map((count) =>
      target(`${kind} ÷ bare Fastify, both with ${inProcesses(count)}`, 'least', bound, [
        median(of(kind, count), rate),
        median(of('bare Fastify', count), rate),
      ]),
    )
  return [
    target(`new orders, ${inProcesses(processes)} ÷ Postgres alone (pgbench)`, 'least', 0.9, [
      median(created, rate),
      median(of('Postgres alone (pgbench)', 0, PGBENCH_CLIENTS), rate),
    ]),
    target(
      `new orders, ${inProcesses(processes)} ÷ one insert per request, 1 process`,
      'least',
      3,
      [median(created, rate), median(of('one insert per request', 1), rate)],
    ),
    ...againstBare('replays', 0.7),
    ...againstBare('over the limit (429)', 0.6),
    ...againstBare('wrong signature (401)', 0.6),
    target('mean latency on one connection: new orders ÷ one insert per request', 'most', 1.3, [
      median(of('new orders', 1, 1), mean),
      median(of('one insert per request', 1, 1), mean),
    ]),
    ...counts.map((count) =>
      target(`p99 ÷ p50 of new orders, ${inProcesses(count)}`, 'most', 6, [
        median(of('new orders', count), ({ p99 }) => p99),
        median(of('new orders', count), ({ p50 }) => p50),
      ]),
    ),
  ]
}

/** What the size of the table may add to the cost of an order: CPU of all programs but the load's. */
export function tableTargetsOf({ costs }: LargeTableResults): Target[] {
  return [false, true].map((orderedKeys) => {
    const [small, large] = costs.filter((cost) => cost.orderedKeys === orderedKeys)
    const name = `cost of an order among ten million ÷ among 100 000, ${orderedKeys ? 'ascending' : 'random'} keys`
    return target(name, 'most', 1.25, [costOf(large), costOf(small)])
  })
}

/** µs of CPU of all programs together, if all were measured. */
export function costOf(table: TableCost | undefined): number | undefined {
  if (table === undefined || table.faults.length > 0) return undefined
  const { service, postgres, redis } = table.cpu
  if (service === null || postgres === null || redis === null) return undefined
  return service + postgres + redis
}

/** In one word. */
export function verdictOf({ ratio, is, bound }: Target): 'reached' | 'missed' | 'not measured' {
  if (ratio === undefined) return 'not measured'
  return (is === 'least' ? ratio >= bound : ratio <= bound) ? 'reached' : 'missed'
}

function target(
  name: string,
  is: Target['is'],
  bound: number,
  [above, below]: (number | undefined)[],
): Target {
  const ratio = above === undefined || below === undefined ? undefined : above / below
  return { name, is, bound, ratio }
}

function median(runs: Run[], figure: (run: Run) => number | null): number | undefined {
  const figures = runs.map(figure).filter((value) => value !== null)
  return figures.length === 0 ? undefined : spreadOf(figures).median
}
