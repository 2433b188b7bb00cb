import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { formatResults, keepResults, readResults, writeDocuments } from './documents.ts'
import { measureEndurance } from './endurance.ts'
import { measureLargeTable } from './large-table.ts'
import { faultsOf, type Results } from './results.ts'
import { measureRounds } from './rounds.ts'
import { caseTable, targetTable } from './tables.ts'
import { targetsOf } from './targets.ts'
import { columns } from './text.ts'
import { openWorld, type World } from './world.ts'

const USAGE = `usage: npm run bench -- [options]
  --cases              all cases in turn, and a sweep over connections (without another part: this)
  --endurance          a million orders through one service
  --large-table        what an order costs among ten million
  --rounds N           how often each case is measured (3)
  --seconds N          for how long each time, about (5)
  --processes N        the larger number of processes (2)
  --connections N      of most cases (64)
  --quick              one round of 2 s, no sweep; writes nothing to docs/
  --only TEXT          only cases whose names have it in them; writes nothing to docs/
  --json FILE          writes this run's results there
  --render             measures nothing: writes docs/ again from docs/benchmarks.json`

type Options = ReturnType<typeof parseOptions>

/** Measures, prints and writes the documents. @returns the exit code */
async function main(options: Options): Promise<number> {
  if (options.render) {
    await writeDocuments(await readResults())
    return 0
  }
  const broken = new Promise<never>((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => reject(new Error(`broken off by ${signal}`)))
    }
  })
  broken.catch(() => {}) // it may come before anything is measured, or after
  const world = await openWorld()
  let results: Results
  try {
    results = await Promise.race([measureAll(options, world), broken])
  } finally {
    await world.close()
  }
  if (options.json) await writeFile(options.json, formatResults(results))
  if (!options.quick && options.only === '') await keepResults(results)
  const faults = faultsOf(results)
  if (faults.length > 0) console.error(`\nFIGURES ARE VOID:\n${faults.join('\n')}`)
  return faults.length > 0 ? 1 : 0
}

async function measureAll(options: Options, world: World): Promise<Results> {
  const results: Results = {}
  if (options.cases) {
    results.cases = await measureRounds(options, world)
    console.log(`\n${columns(caseTable(results.cases.runs))}`)
    const [head = [], ...targets] = targetTable(targetsOf(results.cases))
    const measured = targets.filter((row) => !row.includes('not measured'))
    if (measured.length > 0) console.log(`\n${columns([head, ...measured])}`)
  }
  if (options.endurance) results.endurance = await measureEndurance(options, world)
  if (options.largeTable) results.largeTable = await measureLargeTable(options, world)
  return results
}

function parseOptions() {
  const { values } = parseArgs({
    options: {
      cases: { type: 'boolean', default: false },
      endurance: { type: 'boolean', default: false },
      'large-table': { type: 'boolean', default: false },
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '5' },
      processes: { type: 'string', default: '2' },
      connections: { type: 'string', default: '64' },
      quick: { type: 'boolean', default: false },
      only: { type: 'string', default: '' },
      json: { type: 'string' },
      render: { type: 'boolean', default: false },
    },
  })
  const { endurance, 'large-table': largeTable, quick, only, json, render } = values
  const options = {
    cases: values.cases || !(endurance || largeTable),
    endurance,
    largeTable,
    rounds: quick ? 1 : Number(values.rounds),
    seconds: quick ? 2 : Number(values.seconds),
    processes: Number(values.processes),
    connections: Number(values.connections),
    sweep: !quick,
    quick,
    only,
    json,
    render,
  }
  const { rounds, seconds, processes, connections } = options
  const areWhole = [rounds, seconds, processes, connections].every(Number.isInteger)
  if (!areWhole || rounds < 1 || seconds < 1 || processes < 2 || connections < 1) {
    throw new Error('numbers are whole and at least 1, --processes at least 2')
  }
  return options
}

function optionsOrUsage(): Options {
  try {
    return parseOptions()
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`)
    process.exit(1)
  }
}

try {
  process.exitCode = await main(optionsOrUsage())
} catch (error) {
  console.error('The benchmark was not finished:', error)
  process.exitCode = 1
}
// What was broken off may still hold this process; what it has started is killed with it.
process.exit()
