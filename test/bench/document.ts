// Writes the table and the chart into docs/benchmarks.md, between its two markers.
import { readFile, writeFile } from 'node:fs/promises'
import { availableParallelism, cpus, totalmem, type } from 'node:os'
import {
  type Case,
  CHART_CASES,
  CHART_CONNECTIONS,
  CHART_PROCESSES,
  describeCase,
  TABLE_CASES,
} from './cases.ts'
import type { Figures } from './measure.ts'
import type { Results } from './rounds.ts'
import { median } from './statistics.ts'
import type { Stores } from './stores.ts'

const FILE = new URL('../../docs/benchmarks.md', import.meta.url)
const RESULTS = /(<!-- results .*?-->\n)[\s\S]*(<!-- end of results -->)/

const HEAD =
  '| case | requests/s | compared | p50 ms | p99 ms | CPU µs: service | Postgres | Redis |\n' +
  '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |'

/** Replaces the last results. @throws if the file has no markers */
export async function writeDocument(
  results: Results,
  options: { rounds: number; seconds: number },
  stores: Stores,
): Promise<void> {
  const text = await readFile(FILE, 'utf8')
  if (!RESULTS.test(text)) throw new Error('docs/benchmarks.md has no markers for the results')
  const rows = TABLE_CASES.map((benchCase) => renderRow(benchCase, results))
  const parts = [describeRun(options, stores), [HEAD, ...rows].join('\n'), renderChart(results)]
  const replacement = (_: string, start: string, end: string) =>
    `${start}\n${parts.join('\n\n')}\n\n${end}`
  await writeFile(FILE, text.replace(RESULTS, replacement))
}

function describeRun({ rounds, seconds }: { rounds: number; seconds: number }, stores: Stores) {
  const date = new Date().toISOString().slice(0, 10)
  const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`
  const machine = `${cpus()[0]?.model}, ${availableParallelism()} cores, ${memory}, ${type()}`
  return `Measured on ${date}: ${machine}; Node ${process.versions.node},
PostgreSQL ${stores.postgresVersion}, Redis ${stores.redisVersion}.
Rounds: ${rounds}, with about ${seconds} s for each case.`
}

function renderRow(benchCase: Case, results: Results): string {
  const { reference } = benchCase
  const rates = listRates(benchCase, results)
  const referenceRates = reference ? listRates(reference, results) : []
  const ratio = median(referenceRates.map((rate, round) => Number(rates[round]) / rate))
  const medianOf = (figure: (figures: Figures) => number, decimals = 0) =>
    format(median((results.get(benchCase) ?? []).map(figure)), decimals)
  const cells = [
    describeCase(benchCase),
    `${format(median(rates))} (${format(Math.min(...rates))}–${format(Math.max(...rates))})`,
    reference ? `${format(ratio, 2)} × ${reference.name}` : '–',
    medianOf(({ p50Ms }) => p50Ms, 2),
    medianOf(({ p99Ms }) => p99Ms, 2),
    medianOf(({ cpuUs }) => cpuUs.service),
    medianOf(({ cpuUs }) => cpuUs.postgres),
    medianOf(({ cpuUs }) => cpuUs.redis),
  ]
  return `| ${cells.join(' | ')} |`
}

function listRates(benchCase: Case, results: Results): number[] {
  return (results.get(benchCase) ?? []).map(({ rate }) => rate)
}

function renderChart(results: Results): string {
  const cases = [...TABLE_CASES, ...CHART_CASES]
    .filter(({ name }) => name === 'new orders')
    .toSorted((a, b) => a.connections - b.connections)
  const lines = CHART_PROCESSES.map((count) =>
    cases
      .filter(({ processes }) => processes === count)
      .map((benchCase) => Math.round(median(listRates(benchCase, results)))),
  )
  const top = Math.ceil(Math.max(...lines.flat()) / 1000) * 1000
  return `\`\`\`mermaid
---
config:
  themeVariables:
    xyChart:
      plotColorPalette: "#0b62c4, #e06c00"
---
xychart-beta
    title "New orders per second: 1 process blue, 2 processes orange"
    x-axis "connections" [${CHART_CONNECTIONS.join(', ')}]
    y-axis "orders per second" 0 --> ${top}
${lines.map((line) => `    line [${line.join(', ')}]`).join('\n')}
\`\`\``
}

/** With commas between the thousands; a dash if nothing was measured. */
function format(value: number, decimals = 0): string {
  if (Number.isNaN(value)) return '–'
  const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals }
  return value.toLocaleString('en', digits)
}
