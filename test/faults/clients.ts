/** Clients that send orders, repeat them, and record every request with its result. */
import { once, setMaxListeners } from 'node:events'
import { Agent, type IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { open } from '../support/client.ts'
import type { Exchange } from './history.ts'
import { createRandom, pickInteger, pickOne, type Random, type Range } from './random.ts'

const CLIENTS = 24

/** More than the service takes at most: three queries of 3 s. */
const CLIENT_TIMEOUT_MS = 10_000

/** Short, for many attempts within a fault. */
const RETRY_DELAY_MS: Range = [20, 200]

/** Some hundred orders a second, which leave the machine time for the rest. */
const ORDER_INTERVAL_MS: Range = [0, 40]

/** How often two requests are sent at once, to two instances, as by a double click. */
const DOUBLE_SHARE = 0.15
/** How often another body competes for the key from the start, or comes after the 201. */
const RIVAL_BODY_SHARE = 0.1
const LATER_BODY_SHARE = 0.1
/** How often an order is followed by a repeat of an earlier one. */
const REPEAT_SHARE = 0.2

const ITEMS = ['book', 'tea', 'Ölkännchen “groß”', '\u2028 💶']

export const TIMED_OUT = 'timed out'

export interface Load {
  ports: number[]
  seed: number
  /** Aborted: no new orders. */
  ending: AbortSignal
  /** Aborted: no further requests, though orders are unfinished. */
  givingUp: AbortSignal
}

interface ClientOrder {
  key: string
  /** all that were sent, or will be, under this key; the first to be stored is the order */
  bodies: string[]
  attempts: number
}

/**
 * Sends orders until `ending`, each until it gets a 201, and at the end repeats those that needed
 * several attempts.
 *
 * @returns all requests, in the order of their ends
 */
export async function runClients(load: Load): Promise<Exchange[]> {
  const agent = new Agent({ keepAlive: true })
  setMaxListeners(CLIENTS + 1, load.givingUp) // each client waits for it
  const exchanges: Exchange[] = []
  const clients = Array.from({ length: CLIENTS }, (_, id) => runClient(load, id, agent, exchanges))
  await Promise.all(clients)
  agent.destroy()
  return exchanges
}

async function runClient(
  { ports, seed, ending, givingUp }: Load,
  id: number,
  agent: Agent,
  exchanges: Exchange[],
): Promise<void> {
  const random = createRandom(seed + id)
  const wait = (range: Range) =>
    sleep(pickInteger(random, range), undefined, { signal: givingUp }).catch(() => {})
  let requests = id

  async function send(order: ClientOrder): Promise<Exchange> {
    order.attempts++
    const { key } = order
    const body = pickOne(random, order.bodies)
    const instance = requests++ % ports.length
    const sentAt = performance.now()
    const outcome = await sendRequest(ports[instance] as number, key, body, agent)
    const exchange = { key, body, instance, sentAt, endedAt: performance.now(), ...outcome }
    exchanges.push(exchange)
    return exchange
  }

  async function sendUntilCreated(order: ClientOrder): Promise<void> {
    while (!givingUp.aborted) {
      const isDouble = random() < DOUBLE_SHARE
      const sent = await Promise.all(isDouble ? [send(order), send(order)] : [send(order)])
      if (sent.some(({ created }) => created)) return
      await wait(RETRY_DELAY_MS)
    }
  }

  const orders: ClientOrder[] = []
  while (!ending.aborted) {
    const order = {
      key: `${seed}-${id}-${orders.length}`,
      bodies: [createBody(random)],
      attempts: 0,
    }
    if (random() < RIVAL_BODY_SHARE) order.bodies.push(createBody(random))
    orders.push(order)
    await sendUntilCreated(order)
    if (random() < LATER_BODY_SHARE) order.bodies.push(createBody(random))
    if (random() < REPEAT_SHARE) await send(pickOne(random, orders))
    await wait(ORDER_INTERVAL_MS)
  }
  for (const order of orders.filter(({ attempts }) => attempts > 1)) await sendUntilCreated(order)
}

function createBody(random: Random): string {
  const user_id = `user-${pickInteger(random, [1, 100])}`
  const amount = pickInteger(random, [1, 10_000_000]) / 10_000
  return JSON.stringify({ user_id, item: pickOne(random, ITEMS), amount })
}

/** Sends one request and reads its response, for at most `CLIENT_TIMEOUT_MS`. */
async function sendRequest(
  port: number,
  key: string,
  body: string,
  agent: Agent,
): Promise<Pick<Exchange, 'result' | 'created'>> {
  const request = open(port, { key, body, agent })
  const timer = setTimeout(() => request.destroy(new Error(TIMED_OUT)), CLIENT_TIMEOUT_MS)
  try {
    const [incoming] = (await once(request, 'response')) as [IncomingMessage]
    const text = Buffer.concat(await incoming.toArray()).toString()
    const { statusCode, headers } = incoming
    if (statusCode !== 201) return { result: `${statusCode} ${readProblemCode(text)}` }
    const isReplay = headers['idempotency-replayed'] === 'true'
    return { result: '201', created: { response: text, isReplay } }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    return { result: code ?? message }
  } finally {
    clearTimeout(timer)
  }
}

function readProblemCode(text: string): string {
  try {
    return JSON.parse(text).code
  } catch {
    return 'without a problem document'
  }
}
