/**
 * Sends one signed order and tells what became of it, for trying the service by hand:
 *
 *     npm run order -- --item book --amount 500
 */
import { createHmac, randomUUID } from 'node:crypto'
import { parseArgs } from 'node:util'

const USAGE = `Sends one signed order to the service and tells what became of it.

  npm run order -- --item book --amount 500 --key key-001

Once more with the same key, it is the same order: the answer is a replay.

  --item    what is ordered
  --amount  a number; one below zero as --amount=-1
  --user    who orders it (user-1)
  --key     the Idempotency-Key (a new UUID)
  --url     where the service is (http://127.0.0.1:8080)
  --secret  the shared secret (HMAC_SECRET, or the one for development)`

const ANSWER_TIMEOUT_MS = 30_000

/** The headers of an answer that are about the request, rather than its delivery. */
const TELLING_HEADERS =
  /^(content-type|idempotency-replayed|retry-after|www-authenticate|x-ratelimit-.*|x-request-id)$/

try {
  const flags = readFlags()
  if (flags.help) console.log(USAGE)
  else process.exitCode = (await order(flags)) ? 0 : 1
} catch (error) {
  console.error(inOneLine(error as Error))
  process.exitCode = 1
}

function readFlags() {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    options: {
      item: text,
      amount: text,
      user: { ...text, default: 'user-1' },
      key: { ...text, default: randomUUID() },
      url: { ...text, default: 'http://127.0.0.1:8080' },
      secret: { ...text, default: process.env.HMAC_SECRET || 'super-secret-key' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  return values
}

/** @returns whether the service created the order, now or before */
async function order({ item, amount, user, key, url, secret }: ReturnType<typeof readFlags>) {
  if (item === undefined || amount === undefined) {
    throw new Error('--item and --amount are required; --help shows an example')
  }
  if (amount.trim() === '' || !Number.isFinite(Number(amount))) {
    throw new Error(`--amount must be a number, not "${amount}"`)
  }
  const body = JSON.stringify({ user_id: user, item, amount: Number(amount) })
  const headers = {
    'Content-Type': 'application/json',
    'Idempotency-Key': key,
    'X-Signature': createHmac('sha256', secret).update(body).digest('hex'),
  }
  const address = `${url.replace(/\/+$/, '')}/orders`
  print(`POST ${address}`, Object.entries(headers), body)

  const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS)
  const answer = await fetch(address, { method: 'POST', headers, body, signal })
  const answered = await answer.text()
  const telling = [...answer.headers].filter(([name]) => TELLING_HEADERS.test(name))
  print(`${answer.status} ${answer.statusText}`, telling, answered)
  if (answer.status !== 201) {
    console.log(`The order was refused: ${reasonIn(answered) ?? answer.statusText}`)
    return false
  }
  const replayed = answer.headers.has('idempotency-replayed')
  console.log(`${replayed ? 'A replay of the order' : 'A new order'}, under the key ${key}.`)
  return true
}

function print(start: string, headers: Iterable<[string, string]>, body: string) {
  const lines = Array.from(headers, ([name, value]) => `${name}: ${value}`)
  console.log([start, ...lines, '', body, ''].join('\n'))
}

function reasonIn(answered: string): string | undefined {
  try {
    return JSON.parse(answered).detail
  } catch {
    return undefined // not a problem document, so not our service's answer
  }
}

/** What fetch throws says little; its cause knows, for one, that the connection was refused. */
function inOneLine({ message, cause }: Error): string {
  const { code, message: reason } = (cause ?? {}) as { code?: string; message?: string }
  return [message, reason || code].filter(Boolean).join(': ').replaceAll(/\s+/g, ' ')
}
