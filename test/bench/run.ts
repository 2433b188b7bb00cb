import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { measureRounds } from './rounds.ts'
import { caseTable, targetTable } from './tables.ts'
import { columns } from './text.ts'
import { openWorld } from './world.ts'

const USAGE = `usage: npm run bench -- [options]
  --rounds N --seconds N       how often each case is measured (3) and for how long (5)
  --processes N                the larger number of processes (2)
  --connections N              of most cases (64)
  --only TEXT                  only the cases whose names have it in them
  --quick                      one round of 2 s, without the sweep over connections
  --json FILE                  the results, as JSON`

/** Measures, and prints. @returns the exit code */
async function main(): Promise<number> {
  const options = parseOptions()
  const broken = new Promise<never>((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => reject(new Error(`broken off by ${signal}`)))
    }
  })
  const world = await openWorld()
  try {
    const results = await Promise.race([measureRounds(options, world), broken])
    console.log(`\n${columns(caseTable(results.runs))}`)
    console.log(`\n${columns(targetTable(results))}`)
    if (options.json) await writeFile(options.json, `${JSON.stringify(results, undefined, 2)}\n`)
    const isVoid = results.runs.some(({ faults }) => faults.length > 0)
    if (isVoid) console.error('\nSOME RUNS ARE VOID: their figures do not count.')
    return isVoid ? 1 : 0
  } finally {
    await world.close()
  }
}

function parseOptions() {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '5' },
      processes: { type: 'string', default: '2' },
      connections: { type: 'string', default: '64' },
      only: { type: 'string', default: '' },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
    },
  })
  const { quick, only, json } = values
  const options = {
    rounds: quick ? 1 : Number(values.rounds),
    seconds: quick ? 2 : Number(values.seconds),
    processes: Number(values.processes),
    connections: Number(values.connections),
    sweep: !quick,
    only,
    json,
  }
  const { rounds, seconds, processes, connections } = options
  const isWhole = [rounds, seconds, processes, connections].every(Number.isInteger)
  if (!isWhole || rounds < 1 || seconds < 1 || processes < 2 || connections < 1) {
    throw new Error(USAGE)
  }
  return options
}

try {
  process.exitCode = await main()
} catch (error) {
  console.error('The benchmark was not finished:', error)
  process.exitCode = 1
}
// What was broken off may still hold the process open; what it has started is killed with it.
process.exit()
