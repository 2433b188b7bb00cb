import { BlockList, isIP } from 'node:net'
import { availableParallelism } from 'node:os'
import { envSchema } from 'env-schema'
import Type, { type Static } from 'typebox'
import { StartError } from './start-error.ts'

/** What anybody may know: production refuses it. */
export const DEVELOPMENT_SECRET = 'super-secret-key'
const DAY_SECONDS = 86_400

/** As OpenTelemetry names them. */
const SAMPLERS = ['', 'parentbased_'].flatMap((prefix) =>
  ['always_on', 'always_off', 'traceidratio'].map((sampler) => prefix + sampler),
)

/** Each `description` is the rule as a person reads it: "<NAME> must be <description>". */
const Environment = Type.Object({
  NODE_ENV: Type.String({ default: 'development', description: 'a name such as production' }),
  HOST: Type.String({
    default: '127.0.0.1',
    minLength: 1,
    description: 'the address to listen on, such as 127.0.0.1 or 0.0.0.0',
  }),
  PORT: integer(0, 65_535, 8080),
  METRICS_PORT: Type.Optional(integer(0, 65_535)),
  WORKERS: Type.String({
    default: '1',
    pattern: '^(auto|[1-9]|[1-9][0-9])$',
    description: 'auto, for one on each core, or an integer from 1 to 99',
  }),
  HMAC_SECRET: Type.String({
    default: DEVELOPMENT_SECRET,
    minLength: 1,
    pattern: '^[^,]+(,[^,]+)*$',
    description: 'a secret shared with the clients, not empty, or several, separated by commas',
  }),
  SIGNATURE_FAILURES_MAX: integer(1, 1_000_000_000, 100),
  DATABASE_URL: Type.Optional(
    Type.String({
      pattern: '^postgres(ql)?://[^\\s]+$',
      description: 'a URL that begins with postgres://',
    }),
  ),
  REDIS_URL: Type.Optional(
    Type.String({
      pattern: '^rediss?://[^\\s]+$',
      description: 'a URL that begins with redis:// or rediss://',
    }),
  ),
  RATE_LIMIT_MAX: integer(1, 1_000_000_000, 10),
  RATE_LIMIT_WINDOW_SECONDS: integer(1, DAY_SECONDS, 60),
  // At most 30 days: setTimeout and Redis expiries stay far from their limits.
  IDEMPOTENCY_TTL_SECONDS: integer(1, 30 * DAY_SECONDS, DAY_SECONDS),
  IDEMPOTENCY_LEASE_SECONDS: integer(1, 3600, 30),
  IDEMPOTENCY_STORE: Type.Optional(
    Type.Enum(['redis', 'postgres', 'memory'], { description: 'redis, postgres or memory' }),
  ),
  // Longer waits meet the time-outs of proxies.
  IN_FLIGHT_WAIT_SECONDS: integer(0, 30, 0),
  // 100 years are for ever, and still a date that Postgres knows.
  KEY_RETENTION_DAYS: integer(0, 36_500, 0),
  IDEMPOTENCY_MISMATCH_STATUS: Type.Union([Type.Literal(409), Type.Literal(422)], {
    default: 409,
    description: '409 or 422',
  }),
  // At most 1000: no statement may hold up the others for long, and a full one is sent in no time.
  INSERT_BATCH_MAX: integer(1, 1000, 500),
  // At most 16 MiB: beyond it, one JSON.parse holds up every other request for too long.
  MAX_BODY_BYTES: integer(1, 16 * 1024 * 1024, 64 * 1024),
  TRUST_PROXY: Type.Optional(
    Type.String({
      description: 'addresses or CIDR ranges, separated by commas, such as 10.0.0.0/8,::1',
    }),
  ),
  STORES: Type.Enum(['auto', 'embedded'], { default: 'auto', description: 'auto or embedded' }),
  DOCS: Type.Enum(['on', 'off'], { default: 'on', description: 'on or off' }),
  DATA_DIR: Type.String({ default: '.data', minLength: 1, description: 'a folder' }),
  LOG_LEVEL: Type.Enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], {
    default: 'info',
    description: 'one of fatal, error, warn, info, debug, trace, silent',
  }),
  OTEL_EXPORTER_OTLP_ENDPOINT: Type.Optional(
    Type.String({ description: 'a URL that begins with http:// or https://' }),
  ),
  OTEL_EXPORTER_OTLP_HEADERS: Type.Optional(Type.String()),
  OTEL_SERVICE_NAME: Type.Optional(Type.String()),
  OTEL_TRACES_SAMPLER: Type.Optional(
    Type.Enum(SAMPLERS, { description: `one of ${SAMPLERS.join(', ')}` }),
  ),
  OTEL_TRACES_SAMPLER_ARG: Type.Optional(
    Type.Number({ minimum: 0, maximum: 1, description: 'a number from 0 to 1' }),
  ),
})

function integer(minimum: number, maximum: number, byDefault?: number) {
  return Type.Integer({
    minimum,
    maximum,
    ...(byDefault !== undefined && { default: byDefault }),
    description: `an integer from ${minimum} to ${maximum}`,
  })
}

/** What the service is told by its environment, checked; durations in ms. */
export interface Settings {
  production: boolean
  host: string
  port: number
  /** where `/metrics` is served; undefined: at `port`, with the rest */
  metricsPort: number | undefined
  /** how many processes serve requests */
  workers: number
  /** any of them may sign */
  hmacSecrets: string[]
  /** wrong signatures of one client in a window of the rate limit, before it is told to wait */
  maxSignatureFailures: number
  databaseUrl: string | undefined
  redisUrl: string | undefined
  rateLimit: { max: number; windowMs: number }
  idempotency: {
    ttlMs: number
    leaseMs: number
    /** how long a duplicate waits for the request ahead of it, unless it says otherwise */
    waitMs: number
    mismatchStatus: 409 | 422
    /** undefined: by what is configured */
    store: 'redis' | 'postgres' | 'memory' | undefined
  }
  /** how many days an order holds its key; 0: for ever */
  keyRetentionDays: number
  /** the most orders in one insert; 1: each has a statement of its own */
  maxInsertBatch: number
  maxBodyBytes: number
  /** addresses and CIDR ranges of proxies whose X-Forwarded-For is believed */
  trustedProxies: string[]
  /** whether a store without a URL is always the embedded one, whatever answers elsewhere */
  embeddedOnly: boolean
  /** whether the service has pages about itself: `/`, `/docs` and `/openapi.json` */
  docs: boolean
  dataDir: string
  logLevel: Static<typeof Environment>['LOG_LEVEL']
  /** the `OTEL_…` settings, as they are; undefined: there are no traces */
  traces: Record<string, string> | undefined
}

/**
 * Reads the settings from `.env` and the process's environment, which wins.
 *
 * @throws {StartError} one line that names every setting that breaks its rule, never its value
 */
export function readSettings(): Settings {
  return parseSettings(process.env, { dotenv: true })
}

/**
 * Checks an environment and gives it types and units.
 *
 * @throws {StartError} one line that names every setting that breaks its rule, never its value
 */
export function parseSettings(
  environment: Record<string, string | undefined>,
  { dotenv = false } = {},
): Settings {
  const env = validate(environment, dotenv)
  const production = env.NODE_ENV === 'production'
  const trustedProxies = env.TRUST_PROXY?.split(',').map((proxy) => proxy.trim()) ?? []
  const collector = env.OTEL_EXPORTER_OTLP_ENDPOINT
  const broken = [
    ...(trustedProxies.every(isAddressOrRange) ? [] : [ruleOf('TRUST_PROXY')]),
    ...(collector === undefined || isHttpUrl(collector)
      ? []
      : [ruleOf('OTEL_EXPORTER_OTLP_ENDPOINT')]),
    ...(production ? brokenProductionRules(env) : []),
  ]
  if (broken.length > 0) throw new StartError(broken.join('; '))
  return {
    production,
    host: env.HOST,
    port: env.PORT,
    metricsPort: env.METRICS_PORT,
    workers: env.WORKERS === 'auto' ? availableParallelism() : Number(env.WORKERS),
    hmacSecrets: secretsIn(env),
    maxSignatureFailures: env.SIGNATURE_FAILURES_MAX,
    databaseUrl: env.DATABASE_URL,
    redisUrl: env.REDIS_URL,
    rateLimit: { max: env.RATE_LIMIT_MAX, windowMs: env.RATE_LIMIT_WINDOW_SECONDS * 1000 },
    idempotency: {
      ttlMs: env.IDEMPOTENCY_TTL_SECONDS * 1000,
      leaseMs: env.IDEMPOTENCY_LEASE_SECONDS * 1000,
      waitMs: env.IN_FLIGHT_WAIT_SECONDS * 1000,
      mismatchStatus: env.IDEMPOTENCY_MISMATCH_STATUS,
      store: env.IDEMPOTENCY_STORE,
    },
    keyRetentionDays: env.KEY_RETENTION_DAYS,
    maxInsertBatch: env.INSERT_BATCH_MAX,
    maxBodyBytes: env.MAX_BODY_BYTES,
    trustedProxies,
    embeddedOnly: env.STORES === 'embedded',
    docs: env.DOCS === 'on',
    dataDir: env.DATA_DIR,
    logLevel: env.LOG_LEVEL,
    traces: env.OTEL_EXPORTER_OTLP_ENDPOINT === undefined ? undefined : tracesIn(env),
  }
}

type Environment = Static<typeof Environment>

function validate(environment: Record<string, string | undefined>, dotenv: boolean): Environment {
  try {
    // A copy: env-schema writes the parsed values into what it is given.
    return envSchema<Environment>({
      schema: Environment,
      data: { ...environment },
      env: false,
      dotenv,
    })
  } catch (error) {
    const { errors } = error as { errors?: { instancePath: string }[] }
    if (errors === undefined) throw error
    const names = new Set(errors.map(({ instancePath }) => instancePath.slice(1)))
    throw new StartError([...names].map(ruleOf).join('; '))
  }
}

function ruleOf(name: string): string {
  const property = Environment.properties[name as keyof Environment] as { description?: string }
  return `${name} must be ${property.description}`
}

const secretsIn = ({ HMAC_SECRET }: Environment) => HMAC_SECRET.split(',')

function brokenProductionRules(env: Environment): string[] {
  const broken: string[] = []
  // 32 characters: an HMAC-SHA256 key shorter than the hash weakens it (RFC 2104 §3).
  if (secretsIn(env).some((secret) => secret === DEVELOPMENT_SECRET || secret.length < 32)) {
    broken.push('HMAC_SECRET must be set, to 32 characters or more, in production')
  }
  for (const name of ['DATABASE_URL', 'REDIS_URL'] as const) {
    if (env[name] === undefined) broken.push(`${name} must be set in production`)
  }
  return broken
}

/** OpenTelemetry's own settings, in the form of an environment. */
function tracesIn(env: Environment): Record<string, string> {
  const ours = Object.entries(env).filter(([name]) => name.startsWith('OTEL_'))
  return Object.fromEntries(ours.map(([name, value]) => [name, String(value)]))
}

const isHttpUrl = (text: string) => /^https?:/i.test(text) && URL.canParse(text)

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
