/** Reads the flags of `order-once order`, and the files that they name. */
import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { buffer } from 'node:stream/consumers'
import { type ParseArgsConfig, parseArgs } from 'node:util'
import { KeyRuleError } from '../clients/json-web-key.ts'
import { DEVELOPMENT_SECRET, findDamage } from '../secret.ts'
import { createMessageSigner, parseSigningKey, type SigningKey } from './message-signature.ts'
import { DEFAULTS } from './send-with-retries.ts'
import { createSecretSigner, type SignedOrder, signOrder } from './sign.ts'

const DEFAULT_CONCURRENCY = 10

// Each limit catches a typing error, such as a number in the wrong unit.
const MAX_ATTEMPTS = 1000
/** A day; a timer of Node ends at once if it is set to more than 24 days. */
const MAX_SECONDS = 86_400
/** Minutes of requests. */
const MAX_REPEATS = 1_000_000
/** Each request in flight has a socket, and a process may usually open 1024 files. */
const MAX_CONCURRENCY = 1000

export const HELP = `Usage: order-once order [flags]

Sends a signed order and prints the response. Retries transient failures with the same
idempotency key and the same bytes, so that the order is created at most once.

Examples:
  order-once order --item book --amount 500
  order-once order --item book --amount 500 --key key-001 --json
  order-once order --file order.json
  order-once order --file - < order.json
  order-once order --item book --amount 500 --client-key key.json
  order-once order --item book --amount 500 --repeat 100

In a checkout of the repository, type "npm run order --" instead of "order-once order".

Order:
  --item ITEM          the item to order
  --amount NUMBER      the amount; write a negative number as --amount=-1
  --user USER          the id of the user (default: user-1)
  --file FILE          send the bytes of FILE as the body instead; "-" reads stdin
  --key KEY            the idempotency key (default: a new UUID); the same key is the same order

Service:
  --url URL            the address of the service (default: http://127.0.0.1:8080)

Signature:
  --client-key FILE    sign with the key in FILE, by an HTTP message signature (RFC 9421);
                       "-" reads stdin. FILE has what "order-once keygen" prints: the first line
                       on stdout, which begins with {. It is a private JSON Web Key of type
                       Ed25519 or P-256, or a secret of type oct

  Without this flag, sign with the shared secret (X-Signature):
  --secret-file FILE   read the shared secret from FILE; "-" reads stdin
                       (default: the first secret in HMAC_SECRET of the environment or of .env,
                       or the development secret if that is not set)
  --secret SECRET      the shared secret itself: visible to other users, kept in the history of the shell

Retries:
  --attempts N         maximum number of attempts (default: ${DEFAULTS.maxAttempts})
  --max-time SECONDS   time limit for all attempts together (default: ${DEFAULTS.maxTimeMs / 1000})
  --timeout SECONDS    time limit for the response of each attempt (default: ${DEFAULTS.timeoutMs / 1000})

  Retried are: no response, 408, 409 request-in-progress, 429 and 5xx. The wait before a
  retry is Retry-After plus a random time that grows (exponential back-off, full jitter).

Check that the order is created once:
  --repeat N           send the same order N times, without retries, and count the responses
  --concurrency N      maximum number of requests in flight (default: ${DEFAULT_CONCURRENCY})

  By default the service allows 10 requests a minute. To allow more, start it with
  RATE_LIMIT_MAX=100000.

Output:
  --json               print one JSON object on stdout
  -h, --help           print this help

Exit code:
  0   the order was received; with --repeat, exactly one order with exactly one body
  1   any other result
  2   wrong usage`

/** The command was used in a wrong way. The message is one line for a person. */
export class UsageError extends Error {
  override name = 'UsageError'
}

const STRING = { type: 'string' } as const
const OPTIONS = {
  item: STRING,
  amount: STRING,
  user: STRING,
  file: STRING,
  key: STRING,
  url: STRING,
  secret: STRING,
  'secret-file': STRING,
  'client-key': STRING,
  attempts: STRING,
  'max-time': STRING,
  timeout: STRING,
  repeat: STRING,
  concurrency: STRING,
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const satisfies ParseArgsConfig['options']

type Flags = ReturnType<typeof parseArgs<{ options: typeof OPTIONS }>>['values']
type StringFlag = Exclude<keyof Flags, 'json' | 'help'>

/** What to send and how, after all checks. */
export interface OrderCommand {
  key: string
  order: SignedOrder
  maxAttempts: number
  maxTimeMs: number
  timeoutMs: number
  /** undefined: send the order once, with retries */
  repeat: { times: number; concurrency: number } | undefined
  json: boolean
}

/**
 * Reads the flags, and the files that they name.
 *
 * @param environment where the secret is if no flag gives it
 * @returns `'help'` if `--help` is there
 * @throws {UsageError} if a flag is unknown, missing, invalid or in conflict with another
 */
export async function readFlags(
  args: string[],
  environment: Record<string, string | undefined>,
): Promise<OrderCommand | 'help'> {
  const flags = parseFlags(args)
  if (flags.help) return 'help'
  refuseCombination(flags, 'file', ['item', 'amount', 'user'])
  refuseCombination(flags, 'repeat', ['attempts', 'max-time'])
  refuseCombination(flags, 'secret', ['secret-file'])
  refuseCombination(flags, 'client-key', ['secret', 'secret-file'])
  if (flags.concurrency !== undefined && flags.repeat === undefined) {
    throw new UsageError('--concurrency needs --repeat')
  }
  const key = flags.key ?? randomUUID()
  if (/[^\x20-\x7e]/.test(key)) throw new UsageError('--key must be visible ASCII characters')
  if (flags.file === '-' && (flags['secret-file'] === '-' || flags['client-key'] === '-')) {
    throw new UsageError('--file cannot read stdin if --secret-file or --client-key does')
  }
  const clientKey = flags['client-key']
  const signer =
    clientKey === undefined
      ? createSecretSigner(await readSecret(flags, environment))
      : createMessageSigner(await readSigningKey(clientKey))
  const times = parseWholeNumber(flags, 'repeat', MAX_REPEATS)
  return {
    key,
    order: signOrder(readUrl(flags), key, await readBody(flags), signer),
    maxAttempts: parseWholeNumber(flags, 'attempts', MAX_ATTEMPTS) ?? DEFAULTS.maxAttempts,
    maxTimeMs: parseDurationMs(flags, 'max-time') ?? DEFAULTS.maxTimeMs,
    timeoutMs: parseDurationMs(flags, 'timeout') ?? DEFAULTS.timeoutMs,
    repeat: times
      ? {
          times,
          concurrency:
            parseWholeNumber(flags, 'concurrency', MAX_CONCURRENCY) ?? DEFAULT_CONCURRENCY,
        }
      : undefined,
    json: flags.json ?? false,
  }
}

function parseFlags(args: string[]): Flags {
  try {
    return parseArgs({ args, options: OPTIONS }).values
  } catch (error) {
    throw new UsageError(formatError(error))
  }
}

function refuseCombination(flags: Flags, one: keyof Flags, others: (keyof Flags)[]) {
  if (flags[one] === undefined) return
  const other = others.find((name) => flags[name] !== undefined)
  if (other) throw new UsageError(`--${other} cannot be combined with --${one}`)
}

/** @returns undefined if the flag is absent */
function parseWholeNumber(flags: Flags, name: StringFlag, max: number): number | undefined {
  const value = flags[name]
  if (value === undefined) return undefined
  const number = Number(value)
  if (Number.isInteger(number) && number >= 1 && number <= max) return number
  throw new UsageError(`--${name} must be a whole number from 1 to ${max}, not "${value}"`)
}

/** @returns ms; undefined if the flag, which is in seconds, is absent */
function parseDurationMs(flags: Flags, name: StringFlag): number | undefined {
  const value = flags[name]
  if (value === undefined) return undefined
  const seconds = Number(value)
  if (seconds > 0 && seconds <= MAX_SECONDS) return seconds * 1000
  throw new UsageError(
    `--${name} must be a number greater than 0 and at most ${MAX_SECONDS}, not "${value}"`,
  )
}

function readUrl({ url = 'http://127.0.0.1:8080' }: Flags): string {
  if (URL.canParse(url)) {
    const { protocol, username, password } = new URL(url)
    // fetch refuses any other.
    if (/^https?:$/.test(protocol) && !username && !password) return url
  }
  throw new UsageError(`--url must be a URL such as http://127.0.0.1:8080, not "${url}"`)
}

async function readSecret(
  { secret, 'secret-file': file }: Flags,
  environment: Record<string, string | undefined>,
): Promise<string> {
  const check = (source: string, text = '') => {
    if (text === '') throw new UsageError(`${source} has no secret`)
    const damage = findDamage(text)
    if (damage) throw new UsageError(`${source}: a secret ${damage}`)
    return text
  }
  if (secret !== undefined) return check('--secret', secret)
  if (file !== undefined) {
    const bytes = await readBytes(file, '--secret-file')
    // Most editors end a file with a line break.
    return check('--secret-file', new TextDecoder().decode(bytes).trimEnd())
  }
  const secrets = environment.HMAC_SECRET ?? DEVELOPMENT_SECRET
  const first = check('HMAC_SECRET', secrets.split(',')[0])
  const damage = findDamage(secrets)
  if (damage) throw new UsageError(`HMAC_SECRET ${damage}`)
  return first
}

async function readSigningKey(file: string): Promise<SigningKey> {
  const bytes = await readBytes(file, '--client-key')
  try {
    return parseSigningKey(new TextDecoder().decode(bytes))
  } catch (error) {
    if (!(error instanceof KeyRuleError)) throw error
    throw new UsageError(`--client-key: ${error.member ?? 'the key'} ${error.message}`)
  }
}

/** @param file a path; `-` is stdin @param flag that names it */
async function readBytes(file: string, flag: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await (file === '-' ? buffer(process.stdin) : readFile(file)))
  } catch (error) {
    throw new UsageError(`${flag} cannot be read: ${formatError(error)}`)
  }
}

async function readBody(flags: Flags): Promise<Uint8Array<ArrayBuffer>> {
  const { file, item, amount, user = 'user-1' } = flags
  if (file !== undefined) return readBytes(file, '--file')
  if (item === undefined || amount === undefined) {
    throw new UsageError('--item and --amount are required, or --file; see --help for examples')
  }
  if (amount.trim() === '' || !Number.isFinite(Number(amount))) {
    throw new UsageError(`--amount must be a number, not "${amount}"`)
  }
  return new TextEncoder().encode(JSON.stringify({ user_id: user, item, amount: Number(amount) }))
}

/** Formats an error in one line. */
function formatError(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replaceAll(/\s+/g, ' ')
}
