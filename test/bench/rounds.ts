// Measures all cases in turn, several times, each on a fresh service and empty stores.
import { type Case, CHART_CASES, describeCase, TABLE_CASES } from './cases.ts'
import { type Figures, measurePgbench, measureService, warmUp } from './measure.ts'
import { findPgbench } from './pgbench.ts'
import { startBareFastify, startService, THIS_CHECKOUT } from './service.ts'
import type { Stores } from './stores.ts'

/** The figures of each case, benchCase for each round. */
export type Results = Map<Case, Figures[]>

/** @throws if pgbench is not installed or a measurement is not valid */
export async function measureRounds(
  { rounds, seconds }: { rounds: number; seconds: number },
  stores: Stores,
): Promise<Results> {
  findPgbench()
  const cases = [...TABLE_CASES, ...CHART_CASES]
  const results: Results = new Map(cases.map((benchCase) => [benchCase, []]))
  for (let round = 0; round < rounds; round++) {
    // Each round starts with another case: the machine may become slower while it is busy.
    const first = Math.floor((round * cases.length) / rounds)
    for (const benchCase of [...cases.slice(first), ...cases.slice(0, first)]) {
      const figures = await measureCase(benchCase, seconds, stores)
      results.get(benchCase)?.push(figures)
      const { rate, p50Ms, p99Ms } = figures
      const speed = `${rate.toFixed(0)}/s, p50 ${p50Ms.toFixed(2)} ms, p99 ${p99Ms.toFixed(2)} ms`
      console.log(`${round + 1}/${rounds}  ${describeCase(benchCase)}: ${speed}`)
    }
  }
  return results
}

async function measureCase(benchCase: Case, seconds: number, stores: Stores): Promise<Figures> {
  const service =
    benchCase.program === 'bare Fastify'
      ? await startBareFastify(stores, benchCase.processes)
      : await startService(THIS_CHECKOUT, stores, benchCase)
  await warmUp(service, [benchCase.traffic])
  const measure = benchCase.program === 'pgbench' ? measurePgbench : measureService
  const figures = await measure(service, stores, { ...benchCase, seconds })
  await service.stop()
  return figures
}
