import { once, setMaxListeners } from 'node:events'
import { Agent, type IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { open } from '../support/client.ts'
import { count, type Journal, type SentOrder, TIMED_OUT } from './journal.ts'
import { createRandom, integerBetween, oneOf, type Random } from './random.ts'

const CLIENTS = 24

/** As long as an instance takes to end; nobody would wait longer for an order. */
const CLIENT_TIMEOUT_MS = 10_000

/** Between two tries, in ms: short, for many tries within a fault. */
const BACK_OFF: [number, number] = [20, 200]

/** Between two orders, in ms: some hundred orders a second, which leave the machine some air. */
const THINKING: [number, number] = [0, 40]

/** How often a try is sent twice at once, to two instances, as by a double click. */
const DOUBLE_SHARE = 0.15
/** How often an order is followed by a repeat of an earlier one, or by another body under its key. */
const REPEAT_SHARE = 0.2
const CHANGED_SHARE = 0.1

export interface Load {
  journal: Journal
  ports: number[]
  seed: number
  /** no new orders from now on */
  ending: AbortSignal
  /** no tries at all */
  broken: AbortSignal
}

/**
 * Sends orders until `ending`, each until it has got its 201, and then once more those that had to
 * be tried more than once.
 *
 * @throws when `broken` is aborted
 */
export async function runClients(load: Load): Promise<void> {
  const agent = new Agent({ keepAlive: true })
  setMaxListeners(CLIENTS + 10, load.broken) // Node's own limit, and one more for each client
  try {
    const all = Array.from({ length: CLIENTS }, (_, client) =>
      createClient(load, agent, client, createRandom(load.seed + client)),
    )
    await Promise.all(all.map((client) => client.sendOrders()))
    load.journal.allAnsweredAt = performance.now()
    await Promise.all(all.map((client) => client.repeatTroubled()))
  } finally {
    agent.destroy()
  }
}

function createClient(load: Load, agent: Agent, client: number, random: Random) {
  const { journal, ports, seed, ending, broken } = load
  const done: SentOrder[] = []
  let turn = client

  async function place(order: SentOrder): Promise<void> {
    for (;;) {
      const isDouble = random() < DOUBLE_SHARE
      const tries = Array.from({ length: isDouble ? 2 : 1 }, () => tryOrder(order))
      const answers = await Promise.all(tries)
      if (answers.includes(true)) return
      journal.retries++
      await rest(BACK_OFF)
    }
  }

  /** @returns whether the answer was 201 */
  async function tryOrder(order: SentOrder): Promise<boolean> {
    order.attempts++
    const answer = await exchange(order.key, order.body)
    count(journal.results, answer.result)
    if (answer.status !== 201) return false
    order.bodies.add(answer.text)
    if (answer.isReplay) order.replays++
    else order.firstAnswers++
    return true
  }

  async function sendChanged({ key, input }: SentOrder): Promise<void> {
    const body = JSON.stringify({ ...input, item: `another ${input.item}` })
    const { result } = await exchange(key, body)
    count(journal.changedResults, result)
  }

  async function exchange(key: string, body: string) {
    const instance = turn++ % ports.length
    const beganAt = performance.now()
    const answer = await ask(ports[instance] as number, key, body, agent)
    const endedAt = performance.now()
    journal.exchanges.push({ instance, beganAt, endedAt, result: answer.result })
    return answer
  }

  const rest = (range: [number, number]) =>
    sleep(integerBetween(random, ...range), undefined, { signal: broken })

  async function sendOrders(): Promise<void> {
    for (let number = 0; !ending.aborted; number++) {
      const input = {
        user_id: `user-${client}`,
        item: oneOf(random, ['book', 'tea', 'Ölkännchen “groß”', '\u2028 💶']),
        amount: integerBetween(random, 1, 10_000_000) / 10_000,
      }
      const order: SentOrder = {
        key: `${seed}-${client}-${number}`,
        input,
        body: JSON.stringify(input),
        attempts: 0,
        bodies: new Set(),
        firstAnswers: 0,
        replays: 0,
      }
      journal.orders.set(order.key, order)
      await place(order)
      done.push(order)
      if (random() < REPEAT_SHARE) await tryOrder(oneOf(random, done))
      if (random() < CHANGED_SHARE) await sendChanged(oneOf(random, done))
      await rest(THINKING)
    }
  }

  async function repeatTroubled(): Promise<void> {
    for (const order of done) {
      if (order.attempts > 1) await place(order)
    }
  }

  return { sendOrders, repeatTroubled }
}

interface ClientAnswer {
  /** undefined: there was no answer */
  status?: number | undefined
  text: string
  isReplay: boolean
  result: string
}

/** One request, by the time-out of a client. */
async function ask(port: number, key: string, body: string, agent: Agent): Promise<ClientAnswer> {
  const outgoing = open(port, { key, body, agent })
  const timer = setTimeout(() => outgoing.destroy(new Error(TIMED_OUT)), CLIENT_TIMEOUT_MS)
  try {
    const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage]
    const text = Buffer.concat(await incoming.toArray()).toString()
    const { statusCode: status, headers } = incoming
    const code = status === 201 ? '' : ` ${codeIn(text)}`
    const isReplay = headers['idempotency-replayed'] === 'true'
    return { status, text, isReplay, result: `${status}${code}` }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    return { text: '', isReplay: false, result: code ?? message }
  } finally {
    clearTimeout(timer)
  }
}

function codeIn(text: string): string {
  try {
    return JSON.parse(text).code
  } catch {
    return 'without a problem document'
  }
}
