// Measures a running program, and checks that no order was lost or made twice.
import assert from 'node:assert/strict'
import { FIRST_ORDERS, type Traffic } from './cases.ts'
import { sendLoad } from './load.ts'
import { runPgbench } from './pgbench.ts'
import type { Service } from './service.ts'
import type { Stores } from './stores.ts'

/** What clients see. */
export interface Speed {
  /** requests per second */
  rate: number
  p50Ms: number
  p99Ms: number
}

/** Also the CPU time of each program, in µs for each request. */
export interface Figures extends Speed {
  cpuUs: { service: number; postgres: number; redis: number }
}

/** After these, each process has compiled its hot code, however few connections are measured then. */
const WARM_UP = { connections: 64, requestsEach: 256 }
/** Requests that show how many there can be in a second; at least some on each connection. */
const TRIAL_REQUESTS = 500
const MIN_REQUESTS_EACH = 50
/** Of all responses, so many must come while all connections are busy. */
const MIN_COUNTED_SHARE = 1 / 4

/** Creates the orders that are replayed, and sends each kind of traffic before it is measured. */
export async function warmUp({ port }: Service, traffics: Traffic[]): Promise<void> {
  await sendLoad({ port, traffic: FIRST_ORDERS, connections: 10, requestsEach: 100 })
  for (const traffic of traffics) await sendLoad({ port, traffic, ...WARM_UP })
}

/**
 * Measures a warm service for about so many seconds.
 *
 * @throws if a response is not the expected one, a connection fails, or the orders in Postgres are not
 * exactly the acknowledged ones
 */
export async function measureService(
  service: Service,
  stores: Stores,
  options: { traffic: Traffic; connections: number; seconds: number },
): Promise<Figures> {
  const { traffic, connections, seconds } = options
  const load = { port: service.port, traffic, connections }
  const trialEach = Math.max(MIN_REQUESTS_EACH, Math.ceil(TRIAL_REQUESTS / connections))
  const trial = await sendLoad({ ...load, requestsEach: trialEach })
  assert(trial.rate > 0, 'the service does not respond')
  const each = Math.max(MIN_REQUESTS_EACH, Math.ceil((trial.rate * seconds) / connections))
  const requests = connections * each
  return measureRun(service, stores, async () => {
    const result = await sendLoad({ ...load, requestsEach: each })
    const { statuses, replays, errors, counted } = result
    assert.deepEqual(
      { statuses, replays, errors },
      {
        statuses: { [traffic.status]: requests },
        replays: traffic.isReplay ? requests : 0,
        errors: 0,
      },
    )
    assert(counted > requests * MIN_COUNTED_SHARE, 'the connections were not busy together')
    return { ...result, requests, orders: traffic.createsOrder ? requests : 0 }
  })
}

/** Measures Postgres alone, on the database of a service that is idle meanwhile. */
export async function measurePgbench(
  service: Service,
  stores: Stores,
  { connections, seconds }: { connections: number; seconds: number },
): Promise<Figures> {
  const databaseUrl = `${service.database?.postgresUrl}`
  return measureRun(service, stores, async () => {
    const result = await runPgbench(databaseUrl, stores.folder, connections, seconds)
    return { ...result, orders: result.requests }
  })
}

/** Adds the CPU times to what `run` measures. @throws unless it creates exactly `orders` rows */
async function measureRun(
  { database, readCpuTime }: Service,
  stores: Stores,
  run: () => Promise<Speed & { requests: number; orders: number }>,
): Promise<Figures> {
  const countOrders = async () => (await database?.countOrders()) ?? 0
  const readCpuTimes = () => ({ service: readCpuTime(), ...stores.readCpuTimes() })
  await stores.checkpoint()
  const rowsBefore = await countOrders()
  const before = readCpuTimes()
  const { requests, orders, rate, p50Ms, p99Ms } = await run()
  const after = readCpuTimes()
  assert.equal((await countOrders()) - rowsBefore, orders, 'orders in Postgres')
  const cpuUs = {
    service: (after.service - before.service) / requests,
    postgres: (after.postgres - before.postgres) / requests,
    redis: (after.redis - before.redis) / requests,
  }
  return { rate, p50Ms, p99Ms, cpuUs }
}
