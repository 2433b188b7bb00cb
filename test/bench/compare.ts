// Compares the services of two checkouts in alternating pairs of measurements.
import { CONNECTIONS, NEW_ORDERS, REPLAYS } from './cases.ts'
import { type Figures, measureService, warmUp } from './measure.ts'
import { type Service, startService, THIS_CHECKOUT } from './service.ts'
import { median } from './statistics.ts'
import type { Stores } from './stores.ts'

type Pair = Record<'other' | 'this', Figures>

const TRAFFICS = { 'new orders': NEW_ORDERS, replays: REPLAYS }

/** Measures the other checkout, this one, the other one, …; prints the ratios this ÷ other. */
export async function compare(
  otherCheckout: string,
  options: { pairs: number; seconds: number; workers: number },
  stores: Stores,
): Promise<void> {
  const { pairs, seconds, workers: processes } = options
  const otherService = await startService(otherCheckout, stores, { processes, env: {} })
  const thisService = await startService(THIS_CHECKOUT, stores, { processes, env: {} })
  const services = [otherService, thisService]
  for (const service of services) await warmUp(service, Object.values(TRAFFICS))
  for (const [name, traffic] of Object.entries(TRAFFICS)) {
    const load = { traffic, connections: CONNECTIONS, seconds }
    const measure = (service: Service) => measureService(service, stores, load)
    const results: Pair[] = []
    for (let number = 1; number <= pairs; number++) {
      const pair = { other: await measure(otherService), this: await measure(thisService) }
      results.push(pair)
      const rates = `other ${pair.other.rate.toFixed(0)}/s, this ${pair.this.rate.toFixed(0)}/s`
      console.log(`${number}/${pairs}  ${name}: ${rates}`)
    }
    printRatios(`${name} per second`, results, ({ rate }) => rate)
    for (const program of ['service', 'postgres', 'redis'] as const) {
      printRatios(`CPU µs of ${program}, ${name}`, results, ({ cpuUs }) => cpuUs[program])
    }
  }
  for (const service of services) await service.stop()
}

function printRatios(name: string, results: Pair[], figure: (figures: Figures) => number): void {
  const ours = median(results.map((pair) => figure(pair.this)))
  const theirs = median(results.map((pair) => figure(pair.other)))
  const ratios = results.map((pair) => figure(pair.this) / figure(pair.other))
  const range = `${Math.min(...ratios).toFixed(3)} to ${Math.max(...ratios).toFixed(3)}`
  console.log(`  ${name}, this ÷ other:
    ratio of medians ${(ours / theirs).toFixed(3)} (${ours.toFixed(0)} ÷ ${theirs.toFixed(0)})
    median of pair ratios ${median(ratios).toFixed(3)} (${range})`)
}
