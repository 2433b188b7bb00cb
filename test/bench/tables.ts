import type { Run } from './results.ts'
import { type Target, verdictOf } from './targets.ts'
import { decimal, megabytes, range } from './text.ts'

/** One line of a run that has just ended. */
export function describeRun(run: Run, rounds: number): string {
  const { name, round, perSecond, p50, p99, mean, cpu, memory, faults } = run
  const latency =
    p50 === null || p99 === null
      ? `mean ${decimal(mean, 2)} ms`
      : `p50 ${decimal(p50, 2)} ms, p99 ${decimal(p99, 2)} ms`
  const micros = Object.entries(cpu).map(
    ([part, value]) => `${part} ${value === null ? '–' : decimal(value)}`,
  )
  const rss = memory.length === 0 ? '' : `; RSS ${memory.map(megabytes).join(' + ')} MB`
  return [
    `${round}/${rounds}  ${name}: ${decimal(perSecond)}/s; ${latency}; CPU µs: ${micros.join(', ')}${rss}`,
    ...faults.map((fault) => `     VOID: ${fault}`),
  ].join('\n')
}

/** Medians, and extremes in parentheses, of each case; only what counts. */
export function caseTable(runs: Run[]): string[][] {
  return [
    [
      ...['case', 'requests/s', 'p50 ms', 'p99 ms', 'mean ms'],
      ...['CPU µs: service', 'Postgres', 'Redis', 'load', 'RSS MB'],
    ],
    ...[...byName(runs)].map(([name, all]) => {
      const counted = all.filter(({ faults }) => faults.length === 0)
      const void_ = all.length - counted.length
      const of = (figure: (run: Run) => number | null, decimals = 0) =>
        range(counted.map(figure), decimals)
      return [
        void_ === 0 ? name : `${name} (${void_} of ${all.length} runs void)`,
        of(({ perSecond }) => perSecond),
        of(({ p50 }) => p50, 2),
        of(({ p99 }) => p99, 2),
        of(({ mean }) => mean, 2),
        of(({ cpu }) => cpu.service),
        of(({ cpu }) => cpu.postgres),
        of(({ cpu }) => cpu.redis),
        of(({ cpu }) => cpu.load),
        of(({ memory }) => (memory.length === 0 ? null : sum(memory) / 1e6)),
      ]
    }),
  ]
}

/** Each ratio, its target and whether it was reached. */
export function targetTable(targets: Target[]): string[][] {
  return [
    ['ratio', 'measured', 'target', ''],
    ...targets.map((target) => [
      target.name,
      target.ratio === undefined ? '–' : decimal(target.ratio, 2),
      `${target.is === 'least' ? '≥' : '≤'} ${target.bound}`,
      verdictOf(target),
    ]),
  ]
}

/** The runs of each case, in the order in which the cases came first. */
export function byName(runs: Run[]): Map<string, Run[]> {
  const groups = new Map<string, Run[]>()
  for (const run of runs) groups.set(run.name, [...(groups.get(run.name) ?? []), run])
  return groups
}

const sum = (values: number[]) => values.reduce((total, value) => total + value, 0)
