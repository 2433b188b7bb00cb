import { listCases } from './cases.ts'
import { describeCircumstances } from './machine.ts'
import { measure } from './measure.ts'
import { pgbench } from './pgbench.ts'
import type { CaseResults, Run } from './results.ts'
import { describeRun } from './tables.ts'
import type { World } from './world.ts'

/** Which cases, how often and how long. */
export interface RoundOptions {
  rounds: number
  /** of each run, about */
  seconds: number
  processes: number
  connections: number
  sweep: boolean
  /** a part of the names of those cases that are measured */
  only: string
}

/** Measures all cases in turn, and again, each time from another one on. */
export async function measureRounds(options: RoundOptions, world: World): Promise<CaseResults> {
  const { rounds, seconds, only } = options
  const circumstances = describeCircumstances(options, world.stores)
  const cases = listCases(options).filter(
    ({ name, kind }) =>
      name.includes(only) && (pgbench !== undefined || kind !== 'Postgres alone (pgbench)'),
  )
  if (pgbench === undefined) {
    console.error('\nPOSTGRES ALONE IS LEFT OUT: there is no pgbench on the PATH.\n')
  }
  if (cases.length === 0) throw new Error(`no case has "${only}" in its name`)
  const runs: Run[] = []
  for (let round = 1; round <= rounds; round++) {
    // What comes late in a round, after the machine has become warm, comes early in another.
    const first = Math.floor(((round - 1) * cases.length) / rounds)
    for (const plan of [...cases.slice(first), ...cases.slice(0, first)]) {
      const run = await measure(plan, round, seconds, world)
      console.log(describeRun(run, rounds))
      runs.push(run)
    }
  }
  return { ...circumstances, rounds, seconds, runs }
}
