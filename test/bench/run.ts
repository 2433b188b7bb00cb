// Runs the benchmark: `npm run bench -- --help` explains it.
import { parseArgs } from 'node:util'
import { onInterruption } from '../support/interruption.ts'
import { compare } from './compare.ts'
import { writeDocument } from './document.ts'
import { measureRounds } from './rounds.ts'
import { startStores } from './stores.ts'

const USAGE = `usage: npm run bench -- [options]

Measures the compiled service of this checkout and writes docs/benchmarks.md. It needs pgbench and
redis-server; it starts a PostgreSQL and a Redis of its own.

  --rounds N      how often each case is measured (default 3)
  --seconds N     how long each measurement takes, about (default 4)

  --compare PATH  measures this checkout against another compiled one, in alternating pairs, and
                  prints the ratios; writes nothing
  --pairs N       how many pairs (default 10)
  --workers N     processes of each service, 1 or 2 (default 1)

  --help          prints this text
`

try {
  await main()
} catch (error) {
  console.error('the benchmark failed:', error)
  process.exitCode = 1
}
// After an interruption, the load may still run.
process.exit()

async function main(): Promise<void> {
  const options = parseOptions()
  if (options.help) return console.log(USAGE)
  const interrupted = new Promise<never>((_, reject) => {
    onInterruption((signal) => reject(new Error(`interrupted by ${signal}`)))
  })
  interrupted.catch(() => {}) // it may come while the stores start
  const stores = await startStores()
  try {
    if (options.compare === undefined) {
      const results = await Promise.race([measureRounds(options, stores), interrupted])
      await writeDocument(results, options, stores)
    } else {
      await Promise.race([compare(options.compare, options, stores), interrupted])
    }
  } finally {
    await stores.close()
  }
}

/** @throws if an option is unknown or not a number */
function parseOptions() {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '4' },
      compare: { type: 'string' },
      pairs: { type: 'string', default: '10' },
      workers: { type: 'string', default: '1' },
      help: { type: 'boolean', default: false },
    },
  })
  const readInteger = (name: 'rounds' | 'seconds' | 'pairs' | 'workers') => {
    const value = Number(values[name])
    if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} must be 1 or more`)
    return value
  }
  return {
    ...values,
    rounds: readInteger('rounds'),
    seconds: readInteger('seconds'),
    pairs: readInteger('pairs'),
    workers: readInteger('workers'),
  }
}
