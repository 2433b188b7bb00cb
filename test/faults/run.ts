/**
 * Runs the compiled service while its stores, its connections and its own processes fail, and checks
 * from outside that every order was created once. The same `--seed` plans the same faults.
 */
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { onInterruption } from '../support/interruption.ts'
import { runClients } from './clients.ts'
import { collectFindings, isClean } from './findings.ts'
import { createReport, printReport, type Report } from './report.ts'
import { runFaults } from './schedule.ts'
import { startSystem } from './system.ts'

const USAGE = 'usage: npm run test:faults -- [--seconds N] [--seed N] [--json FILE]'

/** Every kind of fault happens within it. */
const DEFAULT_SECONDS = '60'

/** Every order must have its 201 this long after the last fault; clients retry within a second. */
const LAST_ORDER_TIMEOUT_MS = 60_000

async function main(stop: AbortController): Promise<boolean> {
  const { seconds, seed, json } = readOptions()
  console.log(`${seconds} s of faults, seed ${seed}`)
  const report = await run(seconds, seed, stop)
  printReport(report)
  if (json) await writeFile(json, `${JSON.stringify(report, undefined, 2)}\n`)
  const hasPassed = isClean(report.findings)
  console.log(
    hasPassed
      ? '\nPassed: every order was created once, and every response agrees with it.'
      : `\nFailed: run it with --seed ${seed} for the same faults.`,
  )
  return hasPassed
}

/** @param stop ends the run early, when it is aborted */
async function run(seconds: number, seed: number, stop: AbortController): Promise<Report> {
  const system = await startSystem(stop.signal)
  try {
    const { instances, postgres } = system
    const ending = new AbortController()
    const late = new AbortController()
    const load = {
      ports: instances.map(({ port }) => port),
      seed,
      ending: ending.signal,
      givingUp: AbortSignal.any([stop.signal, late.signal]),
    }
    const endLoad = () => {
      ending.abort()
      setTimeout(() => late.abort(), LAST_ORDER_TIMEOUT_MS).unref()
      return performance.now()
    }
    const [exchanges, { occurrences, faultsEndedAt }] = await Promise.all([
      runClients(load),
      runFaults(system, { seed, totalMs: seconds * 1000, stopped: stop.signal }).then(
        (occurrences) => ({ occurrences, faultsEndedAt: endLoad() }),
      ),
    ])
    stop.signal.throwIfAborted()
    const sql = postgres.connect()
    const findings = await collectFindings(exchanges, sql, { instances, occurrences })
    await sql.end()
    return createReport({
      seed,
      seconds,
      faultsEndedAt,
      exchanges,
      occurrences,
      instances,
      findings,
    })
  } finally {
    stop.abort() // after a failure, the other one is still running
    await system.close()
  }
}

function readOptions(): { seconds: number; seed: number; json: string | undefined } {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: DEFAULT_SECONDS },
      seed: { type: 'string', default: `${Date.now() % 1_000_000}` },
      json: { type: 'string' },
    },
  })
  const [seconds, seed] = [Number(values.seconds), Number(values.seed)]
  if (!Number.isInteger(seconds) || seconds < 1 || !Number.isInteger(seed)) throw new Error(USAGE)
  return { seconds, seed, json: values.json }
}

const stop = new AbortController()
let stoppedBy: string | undefined
onInterruption((signal) => {
  stoppedBy = signal
  stop.abort()
})
try {
  process.exitCode = (await main(stop)) ? 0 : 1
} catch (error) {
  console.error('The run did not finish:', stoppedBy ? `stopped by ${stoppedBy}` : error)
  process.exitCode = 1
}
process.exit() // whatever is still open; this also ends processes and removes files
