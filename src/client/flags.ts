import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { buffer } from 'node:stream/consumers'
import { type ParseArgsConfig, parseArgs } from 'node:util'
import { DEFAULTS } from './send-order.ts'
import { type SignedOrder, signOrder } from './sign.ts'

const DEVELOPMENT_SECRET = 'super-secret-key'
const DEFAULT_CONCURRENCY = 10
/** Far from the limits of a timer. */
const MAX_SECONDS = 86_400

export const HELP = `order-once sends an order to the service, which creates it exactly once.

  order-once order --item book --amount 500
  order-once order --item book --amount 500 --key key-001 --json
  order-once order --file order.json
  order-once order --file - < order.json
  order-once order --item book --amount 500 --repeat 100

In a checkout, "npm run order --" is the same as "order-once order".

What may pass is tried again, with the same key and the same bytes: no answer, 408,
409 request-in-progress, 429 and 5xx. The waits in between grow at random (exponential
back-off with full jitter), and none is shorter than the service's Retry-After.

The order
  --item I          what is ordered
  --amount N        a number; one below zero as --amount=-1
  --user U          who orders it (user-1)
  --file F          instead of these: a file whose bytes are sent as they are; - is stdin
  --key K           the Idempotency-Key (a new UUID); the same again is the same order
The service
  --url U           where it is (http://127.0.0.1:8080)
  --secret S        the shared secret (the first of HMAC_SECRET, or the one for development)
How long to try
  --attempts N      how often at most (${DEFAULTS.maxAttempts})
  --max-time S      for how many seconds altogether (${DEFAULTS.maxTimeMs / 1000})
  --timeout S       how many seconds each attempt waits for its answer (${DEFAULTS.timeoutMs / 1000})
To see that it is created once
  --repeat N        send the same order N times, each without another try, and count the answers;
                    to let more than 10 a minute through, start the service with
                    RATE_LIMIT_MAX=100000
  --concurrency C   how many at once (${DEFAULT_CONCURRENCY})
What is told
  --json            one JSON object on stdout, for programs
  --help            this

Exit code: 0 with the order in hand, 1 without it, 2 if used wrongly. With --repeat, 0 if the
answers hold exactly one order, in exactly one body.`

/** The command was not used as it can be; its message is one line for a person. */
export class UsageError extends Error {
  override name = 'UsageError'
}

const text = { type: 'string' } as const
const OPTIONS = {
  item: text,
  amount: text,
  user: text,
  file: text,
  key: text,
  url: text,
  secret: text,
  attempts: text,
  'max-time': text,
  timeout: text,
  repeat: text,
  concurrency: text,
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const satisfies ParseArgsConfig['options']

type Values = ReturnType<typeof parseArgs<{ options: typeof OPTIONS }>>['values']

/** What is to be done, checked; durations in ms. */
export interface Command {
  key: string
  order: SignedOrder
  maxAttempts: number
  maxTimeMs: number
  timeoutMs: number
  /** undefined: the order is sent once, and again only if need be */
  repeat: { times: number; concurrency: number } | undefined
  json: boolean
}

/**
 * Reads the flags of `order`, and the order from the file that they name.
 *
 * @returns undefined if help is asked for
 * @throws {UsageError}
 */
export async function readFlags(args: string[]): Promise<Command | undefined> {
  const flags = parse(args)
  if (flags.help) return undefined
  refuseTogether(flags, 'file', ['item', 'amount', 'user'])
  refuseTogether(flags, 'repeat', ['attempts', 'max-time'])
  if (flags.concurrency !== undefined && flags.repeat === undefined) {
    throw new UsageError('--concurrency goes with --repeat')
  }
  const key = flags.key ?? randomUUID()
  if (/[^\x20-\x7e]/.test(key)) throw new UsageError('--key must be visible ASCII characters')
  const secret = flags.secret ?? (process.env.HMAC_SECRET?.split(',')[0] || DEVELOPMENT_SECRET)
  const times = number(flags, 'repeat', { max: 1_000_000, whole: true })
  return {
    key,
    order: signOrder(readUrl(flags), key, await readBody(flags), secret),
    maxAttempts: number(flags, 'attempts', { max: 1000, whole: true }) ?? DEFAULTS.maxAttempts,
    maxTimeMs: milliseconds(flags, 'max-time') ?? DEFAULTS.maxTimeMs,
    timeoutMs: milliseconds(flags, 'timeout') ?? DEFAULTS.timeoutMs,
    repeat: times
      ? {
          times,
          concurrency:
            number(flags, 'concurrency', { max: 1000, whole: true }) ?? DEFAULT_CONCURRENCY,
        }
      : undefined,
    json: flags.json ?? false,
  }
}

function parse(args: string[]): Values {
  try {
    return parseArgs({ args, options: OPTIONS }).values
  } catch (error) {
    throw new UsageError((error as Error).message.replaceAll(/\s+/g, ' '))
  }
}

function refuseTogether(flags: Values, one: keyof Values, others: (keyof Values)[]) {
  if (flags[one] === undefined) return
  const other = others.find((name) => flags[name] !== undefined)
  if (other) throw new UsageError(`--${other} does not go with --${one}`)
}

type Text = Exclude<keyof Values, 'json' | 'help'>

/** A number above 0, and from 1 if it is whole. */
function number(flags: Values, name: Text, { max, whole }: { max: number; whole: boolean }) {
  const given = flags[name]
  if (given === undefined) return undefined
  const value = Number(given)
  if (value > 0 && value <= max && (!whole || Number.isInteger(value))) return value
  const kind = whole ? 'a whole number from 1' : 'a number above 0, up'
  throw new UsageError(`--${name} must be ${kind} to ${max}, not "${given}"`)
}

function milliseconds(flags: Values, name: Text) {
  const seconds = number(flags, name, { max: MAX_SECONDS, whole: false })
  return seconds && seconds * 1000
}

function readUrl({ url = 'http://127.0.0.1:8080' }: Values): string {
  if (URL.canParse(url)) {
    const { protocol, username, password } = new URL(url)
    if (/^https?:$/.test(protocol) && !username && !password) return url // fetch takes no others
  }
  throw new UsageError(`--url must be a URL such as http://127.0.0.1:8080, not "${url}"`)
}

async function readBody(flags: Values): Promise<Uint8Array<ArrayBuffer>> {
  const { file, item, amount, user = 'user-1' } = flags
  if (file !== undefined) {
    try {
      return new Uint8Array(await (file === '-' ? buffer(process.stdin) : readFile(file)))
    } catch (error) {
      throw new UsageError(`--file cannot be read: ${(error as Error).message}`)
    }
  }
  if (item === undefined || amount === undefined) {
    throw new UsageError('--item and --amount are required, or --file; --help shows examples')
  }
  if (amount.trim() === '' || !Number.isFinite(Number(amount))) {
    throw new UsageError(`--amount must be a number, not "${amount}"`)
  }
  return new TextEncoder().encode(JSON.stringify({ user_id: user, item, amount: Number(amount) }))
}
