import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { runClients } from './clients.ts'
import { createJournal } from './journal.ts'
import { createReport, printReport, type Report } from './report.ts'
import { sendFaults } from './schedule.ts'
import { isClean, judge } from './verdict.ts'
import { openWorld } from './world.ts'

const USAGE = 'usage: npm run test:faults -- [--seconds N] [--seed N] [--json FILE]'

/** All kinds of faults come within it. */
const DEFAULT_SECONDS = '60'

/** The last fault may have to be undone, and every client is to get its answer "within seconds". */
const SETTLE_BOUND_MS = 60_000

/**
 * Runs the compiled service while its stores, its connections and its own processes fail, and
 * checks from outside that every order was made once. `--seed` repeats a run's schedule.
 */
async function main(): Promise<number> {
  const { seconds, seed, json } = options()
  const broken = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (broken.signal.aborted) process.exit(1) // which kills what is still there
      broken.abort(new Error(`broken off by ${signal}`))
    })
  }
  console.log(`${seconds} s of faults, seed ${seed}`)
  const report = await run(seconds, seed, broken)
  printReport(report)
  if (json) await writeFile(json, `${JSON.stringify(report, undefined, 2)}\n`)
  const clean = isClean(report.verdict)
  console.log(
    clean
      ? '\nEvery order was made once, and every answer told of it.'
      : `\nThe run failed; --seed ${seed} repeats its schedule.`,
  )
  return clean ? 0 : 1
}

async function run(seconds: number, seed: number, broken: AbortController): Promise<Report> {
  const totalMs = seconds * 1000
  const world = await openWorld()
  try {
    const { instances, postgres } = world
    const journal = createJournal()
    const ending = new AbortController()
    const ports = instances.map(({ port }) => port)
    const givenUp = new AbortController()
    const load = {
      journal,
      ports,
      seed,
      ending: ending.signal,
      broken: AbortSignal.any([broken.signal, givenUp.signal]),
    }
    // Neither goes on without the other.
    const breakOff = (error: unknown) => {
      if (givenUp.signal.aborted) return
      broken.abort(error)
      throw error
    }
    const clients = runClients(load).catch(breakOff)
    const faults = sendFaults(world, { seed, totalMs, broken: broken.signal }).catch(breakOff)
    await Promise.race([faults, clients])
    const occurrences = (await faults) ?? []
    const healedAt = performance.now()
    ending.abort()
    const bound = setTimeout(() => givenUp.abort(), SETTLE_BOUND_MS)
    await clients
    clearTimeout(bound)
    const sql = postgres.connect()
    try {
      const misconduct = instances.flatMap((instance) => instance.misconduct)
      const verdict = await judge(journal, sql, { misconduct, occurrences })
      return createReport({ seed, seconds, healedAt, journal, occurrences, instances, verdict })
    } finally {
      await sql.end()
    }
  } finally {
    await world.close()
  }
}

function options(): { seconds: number; seed: number; json: string | undefined } {
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

try {
  process.exitCode = await main()
} catch (error) {
  // An abort tells its reason as its cause.
  const { name, cause } = error as Error
  console.error('The run was not finished:', name === 'AbortError' ? String(cause) : error)
  process.exitCode = 1
}
