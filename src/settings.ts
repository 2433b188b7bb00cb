/** The settings: one table of their names in the environment, types, defaults and rules. */
import { BlockList, isIP } from 'node:net'
import { availableParallelism } from 'node:os'
import { readEnvFile } from './env-file.ts'
import { DEVELOPMENT_SECRET, findDamage } from './secret.ts'
import { StartError } from './start-error.ts'
import { parseDatabaseUrl } from './stores/postgres-url.ts'
import { parseRedisUrl, REDIS_SCHEME } from './stores/redis-url.ts'

const DAY_SECONDS = 86_400

/** One setting. */
interface Setting<Value> {
  /** its name in the environment */
  env: string
  /** @returns undefined if the text breaks the rule @throws {StartError} which part of the rule it breaks */
  parse: (text: string) => Value | undefined
  /** as text, like in the environment; undefined: the setting may be absent */
  default: string | undefined
  /** as a person reads it: "<NAME> must be <rule>" */
  rule: string
}

/** How a text becomes a value, and the rule in words. */
type Type<Value> = Pick<Setting<Value>, 'parse' | 'rule'>

const required = <Value>(env: string, byDefault: string | number, type: Type<Value>) => ({
  ...{ env, default: String(byDefault), ...type },
  isOptional: false as const,
})
const optional = <Value>(env: string, type: Type<Value>) => ({
  ...{ env, default: undefined, ...type },
  isOptional: true as const,
})

const text = (rule: string, isValid: (text: string) => boolean = (text) => text !== '') => ({
  parse: (text: string) => (isValid(text) ? text : undefined),
  rule,
})

/** In decimal digits: the value means what a person reads. */
const number = (min: number, max: number, form = /^\d+(\.\d+)?$/) => ({
  parse: (text: string) => {
    const value = Number(text)
    return form.test(text) && value >= min && value <= max ? value : undefined
  },
  rule: `a number from ${min} to ${max}`,
})

const integer = (min: number, max: number) => ({
  ...number(min, max, /^\d+$/),
  rule: `an integer from ${min} to ${max}`,
})

const seconds = (min: number, max: number) => {
  const { parse, rule } = integer(min, max)
  return { parse: (text: string) => toMilliseconds(parse(text)), rule }
}

const toMilliseconds = (seconds: number | undefined) => seconds && seconds * 1000

const oneOf = <const Value extends string | number>(...values: Value[]) => ({
  parse: (text: string) => values.find((value) => String(value) === text),
  rule: `${values.slice(0, -1).join(', ')} or ${values.at(-1)}`,
})

/** A number, or `off`. */
const limit = (min: number, max: number) => {
  const { parse, rule } = integer(min, max)
  return {
    parse: (text: string) => (text === 'off' ? ('off' as const) : parse(text)),
    rule: `off, or ${rule}`,
  }
}

/** As OpenTelemetry names them. */
const SAMPLERS = ['', 'parentbased_'].flatMap((prefix) =>
  ['always_on', 'always_off', 'traceidratio'].map((sampler) => prefix + sampler),
)

/** As OpenTelemetry has headers and attributes. */
const PAIRS = text('name=value pairs, separated by commas', (text) =>
  text.split(',').every((pair) => /^ *[\w.-]+ *=[ -~]*$/.test(pair)),
)

/** Durations are in ms. */
const TABLE = {
  environment: required('NODE_ENV', 'development', oneOf('development', 'test', 'production')),
  host: required('HOST', '127.0.0.1', text('an address to listen on, such as 0.0.0.0')),
  port: required('PORT', 8080, integer(0, 65_535)),
  /** scheme and authority by which clients address the service */
  publicUrl: optional('PUBLIC_URL', {
    parse: parseOrigin,
    rule: 'a URL without a path, such as https://orders.example.com',
  }),
  /** where `/metrics` is served; undefined: at `port`, with the other routes */
  metricsPort: optional('METRICS_PORT', integer(0, 65_535)),
  /** undefined: like `host` */
  metricsHost: optional('METRICS_HOST', text('an address to listen on, such as 127.0.0.1')),
  /** how long a connection without a request stays open: longer than the proxy in front keeps it */
  keepAliveTimeoutMs: required('KEEP_ALIVE_TIMEOUT_SECONDS', 72, seconds(1, 3600)),
  /** how many processes serve requests */
  workers: required('WORKERS', 1, {
    parse: (text) => (text === 'auto' ? ('auto' as const) : integer(1, 99).parse(text)),
    rule: 'auto, for one on each core, or an integer from 1 to 99',
  }),
  /** any of them may sign; none: `X-Signature` is not accepted */
  hmacSecrets: required('HMAC_SECRET', DEVELOPMENT_SECRET, {
    parse: parseSecrets,
    rule: 'a secret shared with the clients, not empty, or several, separated by commas',
  }),
  /** clients and their keys; undefined: message signatures are not accepted */
  clientsFile: optional('CLIENTS_FILE', text('a file')),
  maxSignatureAgeSeconds: required('SIGNATURE_MAX_AGE_SECONDS', 300, integer(1, DAY_SECONDS)),
  /** wrong signatures of one address in a window; further ones are refused with 429 */
  maxSignatureFailures: required('SIGNATURE_FAILURES_MAX', 100, integer(1, 1_000_000_000)),
  databaseUrl: optional(
    'DATABASE_URL',
    text(
      'a URL that begins with postgres://',
      (text) => /^postgres(ql)?:\/\/./.test(text) && parseDatabaseUrl(text) !== undefined,
    ),
  ),
  redisUrl: optional(
    'REDIS_URL',
    text(
      'a URL that begins with redis://, redis+sentinel:// or redis+cluster://, or with rediss for TLS',
      (text) => REDIS_SCHEME.test(text) && parseRedisUrl(text) !== undefined,
    ),
  ),
  rateLimitMax: required('RATE_LIMIT_MAX', 10, limit(1, 1_000_000_000)),
  rateLimitWindowMs: required('RATE_LIMIT_WINDOW_SECONDS', 60, seconds(1, DAY_SECONDS)),
  // At most 30 days: timers and expiry times stay far from their limits.
  responseTtlMs: required('IDEMPOTENCY_TTL_SECONDS', DAY_SECONDS, seconds(1, 30 * DAY_SECONDS)),
  leaseMs: required('IDEMPOTENCY_LEASE_SECONDS', 5, seconds(1, 3600)),
  /** undefined: chosen by the stores that are there */
  idempotencyStore: optional('IDEMPOTENCY_STORE', oneOf('redis', 'postgres', 'memory')),
  /** how long a duplicate waits, unless it prefers another time; longer meets proxies' time-outs */
  waitMs: required('IN_FLIGHT_WAIT_SECONDS', 0, seconds(0, 30)),
  /** how many days an order keeps its key; 0: for ever. 100 years are still a date for Postgres */
  keyRetentionDays: required('KEY_RETENTION_DAYS', 0, integer(0, 36_500)),
  mismatchStatus: required('IDEMPOTENCY_MISMATCH_STATUS', 409, oneOf(409, 422)),
  /** orders in one insert; 1: a statement each. At most 1000: one statement must not delay the others */
  maxInsertBatch: required('INSERT_BATCH_MAX', 500, integer(1, 1000)),
  // At most 1 MiB: parsing a larger body would delay every other request for too long.
  maxBodyBytes: required('MAX_BODY_BYTES', 64 * 1024, integer(1, 1024 * 1024)),
  /** addresses and CIDR ranges of proxies whose X-Forwarded-For is trusted */
  trustedProxies: optional('TRUST_PROXY', {
    parse: (text) => {
      const proxies = text.split(',').map((proxy) => proxy.trim())
      return proxies.every(isAddressOrRange) ? proxies : undefined
    },
    rule: 'addresses or CIDR ranges, separated by commas, such as 10.0.0.0/8,::1',
  }),
  /** `embedded`: a store without a URL is the embedded one, whatever listens elsewhere */
  stores: required('STORES', 'auto', oneOf('auto', 'embedded')),
  /** whether the service has pages about itself: `/`, `/docs` and `/openapi.json` */
  docs: required('DOCS', 'on', oneOf('on', 'off')),
  dataDir: required('DATA_DIR', '.data', text('a folder')),
  logLevel: required(
    'LOG_LEVEL',
    'info',
    oneOf('fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'),
  ),
  /** undefined: no traces */
  tracesEndpoint: optional(
    'OTEL_EXPORTER_OTLP_ENDPOINT',
    text(
      'a URL that begins with http:// or https://',
      (text) => /^https?:/i.test(text) && URL.canParse(text),
    ),
  ),
  // The SDK reads these itself; here they are checked, and taken from `.env`.
  tracesHeaders: optional('OTEL_EXPORTER_OTLP_HEADERS', PAIRS),
  tracesResourceAttributes: optional('OTEL_RESOURCE_ATTRIBUTES', PAIRS),
  tracesServiceName: optional('OTEL_SERVICE_NAME', text('a name')),
  tracesSampler: optional('OTEL_TRACES_SAMPLER', oneOf(...SAMPLERS)),
  tracesSamplerArg: optional('OTEL_TRACES_SAMPLER_ARG', number(0, 1)),
} satisfies Record<string, Setting<unknown> & { isOptional: boolean }>

/** The rule of each setting, as a wrong value is refused: "PORT must be …". For docs/settings.md. */
export const describeRules = () =>
  Object.values(TABLE).map(({ env, rule }) => `${env} must be ${rule}`)

type Table = typeof TABLE

/** The settings of the service, checked; durations in ms. */
export type Settings = {
  [Name in keyof Table]:
    | NonNullable<ReturnType<Table[Name]['parse']>>
    | (Table[Name]['isOptional'] extends true ? undefined : never)
}

type Environment = Record<string, string | undefined>

/**
 * Reads the settings from `.env` and the process's environment, which wins.
 *
 * @throws {StartError} one line that names every setting that breaks its rule, never its value
 */
export function readSettings(): Settings {
  return parseSettings({ ...readEnvFile('.env'), ...process.env })
}

/**
 * Checks an environment and gives it types and units.
 *
 * @throws {StartError} one line that names every setting that breaks its rule, never its value
 */
export function parseSettings(environment: Environment): Settings {
  const values: Record<string, unknown> = {}
  const broken: string[] = []
  for (const [name, { env, parse, default: byDefault, isOptional, rule }] of Object.entries(
    TABLE,
  )) {
    const given = environment[env] ?? byDefault
    if (given === undefined || (given === '' && isOptional)) continue
    try {
      values[name] = parse(given)
      const damage = findDamage(given)
      if (values[name] === undefined) broken.push(`${env} must be ${rule}`)
      else if (damage) broken.push(`${env} ${damage}`)
    } catch (error) {
      if (!(error instanceof StartError)) throw error
      broken.push(error.message)
    }
  }
  if (broken.length > 0) throw new StartError(broken.join('; '))
  const settings = values as Settings
  // With a file of clients, the published secret is no default: anyone could sign with it.
  if (settings.clientsFile && environment.HMAC_SECRET === undefined) settings.hmacSecrets = []
  if (settings.metricsPort === settings.port && settings.port !== 0) {
    throw new StartError('METRICS_PORT must be another port than PORT')
  }
  if (settings.metricsHost !== undefined && settings.metricsPort === undefined) {
    throw new StartError('METRICS_HOST must not be set without METRICS_PORT')
  }
  const brokenInProduction = isProduction(settings) ? checkProductionRules(settings) : []
  if (brokenInProduction.length > 0) throw new StartError(brokenInProduction.join('; '))
  return settings
}

/** Whether the stricter rules of production hold. */
export const isProduction = ({ environment }: Settings) => environment === 'production'

/** Whether anyone can sign. */
export const isSecretPublished = ({ hmacSecrets }: Settings) =>
  hmacSecrets.includes(DEVELOPMENT_SECRET)

/** How many processes serve requests: `auto` is one for each core. */
export const countWorkers = ({ workers }: Settings) =>
  workers === 'auto' ? availableParallelism() : workers

/** The settings of OpenTelemetry's own, by the names that its SDK reads. */
export function getTracesEnvironment(settings: Settings): Record<string, string> {
  const given = Object.entries(TABLE).flatMap(([name, { env }]) => {
    const value = settings[name as keyof Settings]
    return env.startsWith('OTEL_') && value !== undefined ? [[env, String(value)]] : []
  })
  return Object.fromEntries(given)
}

function checkProductionRules(settings: Settings): string[] {
  const broken: string[] = []
  // 32 characters: an HMAC-SHA256 key shorter than the hash weakens it (RFC 2104 §3).
  if (isSecretPublished(settings) || settings.hmacSecrets.some(({ length }) => length < 32)) {
    broken.push(
      'HMAC_SECRET must be set, to 32 characters or more, in production; with CLIENTS_FILE it may be left out',
    )
  }
  for (const name of ['databaseUrl', 'redisUrl'] as const) {
    if (settings[name] === undefined) broken.push(`${TABLE[name].env} must be set in production`)
  }
  return broken
}

/** @throws {StartError} if a secret was damaged */
function parseSecrets(text: string): string[] | undefined {
  const secrets = text.split(',')
  if (secrets.includes('')) return undefined
  for (const secret of secrets) {
    const damage = findDamage(secret)
    if (damage) throw new StartError(`HMAC_SECRET: a secret ${damage}`)
  }
  return secrets
}

function parseOrigin(text: string): string | undefined {
  if (!/^https?:\/\/[^/?#@]+$/i.test(text) || !URL.canParse(text)) return undefined
  return new URL(text).origin
}

function isAddressOrRange(text: string): boolean {
  const [address = '', prefix, ...rest] = text.split('/')
  const version = isIP(address)
  if (version === 0 || rest.length > 0) return false
  if (prefix === undefined) return true
  if (!/^\d{1,3}$/.test(prefix)) return false
  try {
    new BlockList().addSubnet(address, Number(prefix), version === 6 ? 'ipv6' : 'ipv4')
    return true
  } catch {
    return false
  }
}
