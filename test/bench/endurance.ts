import { RECIPES } from './cases.ts'
import { describeCircumstances } from './machine.ts'
import { faultsIn, loadOf, warmUp } from './measure.ts'
import type { Circumstances, EnduranceResults, EnduranceSample } from './results.ts'
import { decimal, megabytes } from './text.ts'
import type { World } from './world.ts'

const SAMPLES = 10

/** Has one service create orders, and looks at its memory each time a tenth of them is there. */
export async function measureEndurance(
  options: Pick<Circumstances, 'processes' | 'connections'>,
  world: World,
  orders = 1_000_000,
): Promise<EnduranceResults> {
  const { stores, load } = world
  const { processes, connections } = options
  const recipe = RECIPES['new orders']
  const requests = Math.ceil(orders / SAMPLES / connections) * connections
  await stores.empty()
  const service = await world.startService(processes)
  const samples: EnduranceSample[] = []
  const faults: string[] = []
  try {
    const template = loadOf(recipe, service.port, connections)
    await warmUp(template, load)
    await stores.empty()
    await stores.settle()
    for (let index = 1; index <= SAMPLES; index++) {
      const answers = await load.send({ ...template, requests })
      const { perSecond, p50, p99 } = answers
      const newRows = (await stores.countOrders()) - (index - 1) * requests
      faults.push(...faultsIn(answers, recipe, newRows, service))
      const [memory, redisMemory] = [service.memory(), await stores.redisMemory()]
      samples.push({ orders: index * requests, perSecond, p50, p99, memory, redisMemory })
      console.log(
        `${decimal(index * requests)} orders: ${decimal(perSecond)}/s; RSS ${memory.map(megabytes).join(' + ')} MB`,
      )
    }
  } finally {
    await service.stop()
  }
  return { ...describeCircumstances(options, stores), samples, faults }
}
