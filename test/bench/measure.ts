import { randomUUID } from 'node:crypto'
import { type Case, RECIPES, type Recipe } from './cases.ts'
import { cpuPerRequest } from './cpu-time.ts'
import type { Answers, Load } from './load.ts'
import type { LoadGenerator } from './load-generator.ts'
import { measurePgbench } from './pgbench.ts'
import type { Run } from './results.ts'
import { type Service, startService } from './service.ts'
import type { World } from './world.ts'

/** How many orders the replays are spread over. */
const KNOWN_KEYS = 1_000

/** By then each process has compiled its hot code, however few connections are measured then. */
const WARM_UP = { connections: 64, requests: 16_384 }
/** Enough to tell a rate by. */
const FIRST_REQUESTS = 500

/** Enough for all connections to be at work together, though one may take a second to open. */
const LEAST_SHARE = 50
/** Of the requests, how many are to be answered in that time. */
const LEAST_COUNTED = 1 / 4

/** Measures one case once, on a service of its own and empty stores, for about so many seconds. */
export async function measure(plan: Case, round: number, seconds: number, world: World) {
  const recipe: Recipe = RECIPES[plan.kind]
  await world.stores.empty()
  if (recipe.program === 'pgbench') return measurePgbench(plan, round, seconds, world)
  const service = await (recipe.program === 'bare'
    ? startService('bare', { folder: world.folder, processes: plan.processes, env: {} })
    : world.startService(plan.processes, recipe.env))
  try {
    return await measureService(plan, round, seconds, world, service)
  } finally {
    await service.stop()
  }
}

async function measureService(
  plan: Case,
  round: number,
  seconds: number,
  { stores, load }: World,
  service: Service,
): Promise<Run> {
  const recipe: Recipe = RECIPES[plan.kind]
  const prepare = async () => ({
    ...loadOf(recipe, service.port, plan.connections),
    knownKeys: recipe.knownInTen > 0 ? await createOrders(service.port, load) : [],
  })
  let template = await prepare()
  const rate = await warmUp(template, load)
  if (recipe.creates) {
    await stores.empty()
    // The service may remember the keys of the orders that are gone.
    template = await prepare()
  }
  await stores.settle()

  const rows = await stores.countOrders()
  const cpu = () => ({ service: service.cpu(), ...stores.cpu() })
  const before = cpu()
  const answers = await load.send({
    ...template,
    requests: requestsFor(rate, seconds, plan.connections),
  })
  const after = cpu()
  const newRows = (await stores.countOrders()) - rows
  const { requests, perSecond, p50, p99, mean } = answers
  return {
    ...plan,
    round,
    requests,
    perSecond,
    p50,
    p99,
    mean,
    cpu: { ...cpuPerRequest(before, after, requests), load: answers.cpu / requests },
    memory: service.memory(),
    faults: faultsIn(answers, recipe, newRows, service),
  }
}

/** Creates orders. @returns their keys */
async function createOrders(port: number, load: LoadGenerator): Promise<string[]> {
  const connections = 10
  const knownKeys = Array.from({ length: KNOWN_KEYS }, () => randomUUID())
  const template = loadOf(RECIPES['new orders'], port, connections)
  await load.send({ ...template, knownKeys, knownInTen: 10, requests: KNOWN_KEYS })
  return knownKeys
}

/** Sends the same requests before they count. @returns how many a second are answered then */
export async function warmUp(template: Omit<Load, 'requests'>, load: LoadGenerator) {
  await load.send({ ...template, ...WARM_UP })
  const requests = requestsFor(FIRST_REQUESTS, 1, template.connections)
  const { perSecond } = await load.send({ ...template, requests })
  if (!Number.isFinite(perSecond)) throw new Error('the service did not answer in the warm-up')
  return perSecond
}

/** What a recipe has sent, but for the number of requests; all keys are new, and random. */
export function loadOf(
  { body, signature, knownInTen }: Recipe,
  port: number,
  connections: number,
): Omit<Load, 'requests'> {
  return { port, connections, body, signature, knownKeys: [], knownInTen, orderedKeys: false }
}

/** How many requests take about so long; every connection has the same share of them. */
function requestsFor(perSecond: number, seconds: number, connections: number): number {
  const share = Math.ceil((perSecond * seconds) / connections)
  return Math.max(share, LEAST_SHARE) * connections
}

/** What is wrong with the answers, or with the orders that came of them. */
export function faultsIn(
  { requests, newKeys, statuses, errors, counted }: Answers,
  { status, creates }: Pick<Recipe, 'status' | 'creates'>,
  newRows: number,
  service: Service,
): string[] {
  const faults: string[] = []
  const expectedRows = creates ? newKeys : 0
  if (statuses[status] !== requests) {
    faults.push(`${requests} answers ${status} expected, got ${JSON.stringify(statuses)}`)
  }
  if (newRows !== expectedRows) {
    faults.push(`${expectedRows} new orders expected, Postgres has ${newRows}`)
  }
  if (errors > 0) faults.push(`${errors} failed connections or time-outs`)
  if (counted < requests * LEAST_COUNTED) {
    faults.push(`all connections were at work for ${counted} of ${requests} answers only`)
  }
  if (faults.length > 0 && service.printed() !== '') {
    faults.push(`the service said: ${service.printed()}`)
  }
  return faults
}
