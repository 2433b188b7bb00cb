import type {
  CaseResults,
  Circumstances,
  EnduranceResults,
  LargeTableResults,
  Results,
  TableCost,
} from './results.ts'
import { caseTable, targetTable } from './tables.ts'
import { costOf, tableTargetsOf, targetsOf } from './targets.ts'
import { decimal, markdownTable, megabytes } from './text.ts'

/** The results and how they came about, for people. */
export function renderMarkdown({ cases, endurance, largeTable }: Results): string {
  return [
    `# Benchmarks

\`npm run bench\` measures all of this again, on any machine, and writes it here, from
[benchmarks.json](benchmarks.json); \`npm run bench -- --quick\` gives an idea within two minutes and
writes nothing. Each part says when and where it was measured. The speeds belong to the machine; what
tells of the service are the ratios.`,
    '## Targets',
    cases ? renderTargets(cases) : notRun(''),
    '## Speed',
    cases ? renderCases(cases) : notRun(''),
    '## A million orders',
    endurance ? renderEndurance(endurance) : notRun(' -- --endurance'),
    '## A large table',
    largeTable ? renderLargeTable(largeTable) : notRun(' -- --large-table'),
    METHOD,
  ].join('\n\n')
}

const METHOD = `## Method

- The compiled service runs as its users run it, on a Postgres of its own that waits for the disk at
  each commit (\`fsync\` and \`synchronous_commit\` are on), and a Redis of its own. Everything, the load
  included, is on one machine and shares its cores: the service gets what the others leave. Its
  limits are out of the way, unless they are what is measured, and \`LOG_LEVEL\` is \`warn\`.
- [autocannon](https://github.com/mcollina/autocannon) sends the requests, in a process of its own,
  over kept connections, one request at a time on each. Each new order has a random UUID as its key,
  and the same signed body. Replays, and other bodies under used keys, are spread over 1 000 orders.
- Each run has a service of its own, empty stores, a warm-up of thousands of requests and then a checkpoint.
  The runs of all cases take turns, each round beginning with another one. The tables have medians,
  and the least and the greatest figure in parentheses.
- A run has a fixed number of requests, all of which are answered. Rate and latencies are taken while
  all connections are at work: from when the last one has had its first answer until the first one
  has had its last. Latencies are exact, to the microsecond, and those of the client: they include
  its own share.
- CPU time is that of the whole run, of each program with all its processes, per request.
- After each run the orders in Postgres are counted. If there is not exactly one for each new key, if
  any answer is not the expected one, or a connection fails, the run is void: its figures do not
  count, and the benchmark fails.
- *One insert per request* is the service with \`INSERT_BATCH_MAX=1\`. *Bare Fastify* is a route that
  parses the same requests and answers them with an order that it does not keep. *Postgres alone* is
  \`pgbench\`, with 32 clients and 2 threads, that runs the service's own prepared \`INSERT\`, a row at a
  time, on the same table.
`

function renderTargets(cases: CaseResults): string {
  return `${circumstancesOf(cases)} Ratios of medians, with ${cases.connections} connections where nothing else is said.

${markdownTable(targetTable(targetsOf(cases)))}`
}

function renderCases(cases: CaseResults): string {
  const { runs, rounds, seconds } = cases
  const newOrders = runs.filter(({ kind }) => kind === 'new orders')
  const sweep = newOrders.sort((a, b) => a.connections - b.connections || a.processes - b.processes)
  return `${circumstancesOf(cases)} Rounds: ${rounds}, of about ${seconds} s a case.

${markdownTable(caseTable(runs.filter((run) => !run.sweep)))}

### Over the number of connections

![Throughput and latency of new orders over the number of connections](benchmarks.svg)

${markdownTable(caseTable(sweep))}`
}

function renderEndurance(results: EnduranceResults): string {
  const { samples, faults, processes, connections } = results
  return `${circumstancesOf(results)} One service of ${processes} processes, new orders on ${connections} connections.${voidOf(faults)}

${markdownTable([
  ['orders', 'orders/s', 'p50 ms', 'p99 ms', 'RSS of each process, MB', 'RSS of Redis, MB'],
  ...samples.map(({ orders, perSecond, p50, p99, memory, redisMemory }) => [
    decimal(orders),
    decimal(perSecond),
    decimal(p50, 2),
    decimal(p99, 2),
    memory.map(megabytes).join(' + ') || '–',
    megabytes(redisMemory),
  ]),
])}`
}

function renderLargeTable(results: LargeTableResults): string {
  const { costs, processes, connections } = results
  const find = (orderedKeys: boolean) => costs.filter((cost) => cost.orderedKeys === orderedKeys)
  const ratios = [false, true].map((ordered) => {
    const [small, large] = find(ordered)
    return small && large
      ? [`${keysOf(ordered)} keys: large ÷ small`, ...ratiosOf(large, small)]
      : []
  })
  const random = find(false).map((cost, index) => {
    const ordered = find(true)[index]
    const share = ordered ? decimal((1 - ordered.walBytes / cost.walBytes) * 100) : '–'
    return `${share} % with ${decimal(cost.rows)} rows`
  })
  const sizes = find(false).map(
    ({ rows, indexBytes }) => `${megabytes(indexBytes)} MB with ${decimal(rows)} rows`,
  )
  return `${circumstancesOf(results)} New orders on ${connections} connections to ${processes} processes, right after a checkpoint, when the log takes most. The small table and the large one were filled in the same way: ascending ids, random keys, and an index on the keys whose pages are as full as random inserts leave them.${voidOf(costs.flatMap(({ faults }) => faults))}

${markdownTable(targetTable(tableTargetsOf(results)))}

The cost is the CPU time of service, Postgres and Redis together.

${markdownTable([
  [
    ...['rows before, keys', 'orders/s', 'CPU µs per order: service', 'Postgres', 'Redis'],
    ...['together', 'bytes of log per order'],
  ],
  ...costs.map((cost) => [
    `${decimal(cost.rows)}, ${keysOf(cost.orderedKeys)}`,
    decimal(cost.perSecond),
    ...[cost.cpu.service, cost.cpu.postgres, cost.cpu.redis, costOf(cost)].map(microsOf),
    decimal(cost.walBytes),
  ]),
  ...ratios.filter((row) => row.length > 0),
])}

Random keys, rather than ascending ones, cost this share of the log: ${random.join(', ')}.
Each of them is at another place of the index, and Postgres logs a whole page when it first changes
after a checkpoint. So between two checkpoints that can be no more than the whole index:
${sizes.join(', ')}. The further apart checkpoints are, the less of it is any order's.`
}

const keysOf = (ordered: boolean) => (ordered ? 'ascending' : 'random')

const microsOf = (value: number | null | undefined) =>
  value === null || value === undefined ? '–' : decimal(value, 1)

function ratiosOf(above: TableCost, below: TableCost): string[] {
  const of = (value: (cost: TableCost) => number | null | undefined) => {
    const [dividend, divisor] = [value(above), value(below)]
    return dividend && divisor ? decimal(dividend / divisor, 2) : '–'
  }
  return [
    of(({ perSecond }) => perSecond),
    of(({ cpu }) => cpu.service),
    of(({ cpu }) => cpu.postgres),
    of(({ cpu }) => cpu.redis),
    of(costOf),
    of(({ walBytes }) => walBytes),
  ]
}

function circumstancesOf({ date, machine }: Circumstances): string {
  const { cpu, cores, memory, system, node, postgres, redis } = machine
  return `Measured on ${date.slice(0, 10)}: ${cpu}, ${cores} cores, ${decimal(memory / 2 ** 30)} GiB, ${system}; Node ${node}, Postgres ${postgres}, Redis ${redis}.`
}

const notRun = (options: string) => `Not measured yet: \`npm run bench${options}\`.`

const voidOf = (faults: string[]) => (faults.length === 0 ? '' : ` **Void:** ${faults.join('; ')}.`)
