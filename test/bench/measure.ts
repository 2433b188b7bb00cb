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

/** Enough to tell a rate by, even of a cold service. */
const FIRST_REQUESTS = 500
/** By then the hot code is compiled. */
const WARM_UP_SECONDS = 2

/** Each connection gets a few answers, so that there is a time in which all are at work. */
const LEAST_SHARE = 20

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
  const knownKeys = Array.from({ length: KNOWN_KEYS }, (_, index) => `known-${round}-${index}`)
  const template = { ...loadOf(recipe, service.port, plan.connections), knownKeys }
  const prepare = async () => {
    if (recipe.knownInTen === 0) return
    const { body, signature } = RECIPES['new orders']
    const once = { body, signature, knownInTen: 10, connections: 10, requests: KNOWN_KEYS }
    await load.send({ ...template, ...once })
  }

  await prepare()
  const rate = await warmUp(template, load)
  if (recipe.creates) {
    await stores.empty()
    await prepare()
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

/** Sends the same requests for a while. @returns how many a second are answered then */
export async function warmUp(template: Omit<Load, 'requests'>, load: LoadGenerator) {
  let rate = FIRST_REQUESTS
  for (const seconds of [1, WARM_UP_SECONDS]) {
    const requests = requestsFor(rate, seconds, template.connections)
    rate = (await load.send({ ...template, requests })).perSecond
  }
  return rate
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
  { requests, newKeys, statuses, errors, perSecond }: Answers,
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
  if (!Number.isFinite(perSecond)) faults.push('the connections were never all at work')
  if (faults.length > 0 && service.printed() !== '') {
    faults.push(`the service said: ${service.printed()}`)
  }
  return faults
}
