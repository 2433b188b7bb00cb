import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { describeRules, isProduction, parseSettings } from '../src/settings.ts'
import { createTemporaryFolder, spawnService } from './support/process.ts'

describe('the settings', () => {
  test('have defaults for development', () => {
    expect(parseSettings({})).toEqual({
      environment: 'development',
      host: '127.0.0.1',
      port: 8080,
      keepAliveTimeoutMs: 72_000,
      workers: 1,
      hmacSecrets: ['super-secret-key'],
      maxSignatureAgeSeconds: 300,
      maxSignatureFailures: 100,
      rateLimitMax: 10,
      rateLimitWindowMs: 60_000,
      responseTtlMs: 86_400_000,
      leaseMs: 5_000,
      waitMs: 0,
      mismatchStatus: 409,
      keyRetentionDays: 0,
      maxInsertBatch: 500,
      maxBodyBytes: 65_536,
      stores: 'auto',
      dataDir: '.data',
      docs: 'on',
      logLevel: 'info',
    })
  })

  test.each([
    ['PORT', 'http', 'PORT must be an integer from 0 to 65535'],
    ['PORT', '65536', 'PORT must be an integer from 0 to 65535'],
    ...['0', '100', 'all'].map((value) => [
      'WORKERS',
      value,
      'WORKERS must be auto, for one on each core, or an integer from 1 to 99',
    ]),
    ...['0x10', '1e1', ' 8', '8\n', '+5', '-1', '1.0', '5.', 'NaN', '1e309'].map((value) => [
      'RATE_LIMIT_MAX',
      value,
      'RATE_LIMIT_MAX must be off, or an integer from 1 to 1000000000',
    ]),
    ...['.5', '1.5', '1e-1', '0x1', '-0'].map((value) => [
      'OTEL_TRACES_SAMPLER_ARG',
      value,
      'OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1',
    ]),
    ['INSERT_BATCH_MAX', '1001', 'INSERT_BATCH_MAX must be an integer from 1 to 1000'],
    ['DOCS', 'maybe', 'DOCS must be on or off'],
    ['PORT', '', 'PORT must be an integer from 0 to 65535'],
    [
      'KEEP_ALIVE_TIMEOUT_SECONDS',
      '0',
      'KEEP_ALIVE_TIMEOUT_SECONDS must be an integer from 1 to 3600',
    ],
    ['METRICS_PORT', '8080', 'METRICS_PORT must be another port than PORT'],
    ['METRICS_PORT', 'tcp://10.0.0.1:80', 'METRICS_PORT must be an integer from 0 to 65535'],
    ['NODE_ENV', 'prod', 'NODE_ENV must be development, test or production'],
    ...[' a', 'a\n', 'a, b', ' '.repeat(40)].map((value) => [
      'HMAC_SECRET',
      value,
      'HMAC_SECRET: a secret must not begin or end with white space',
    ]),
    ['HMAC_SECRET', '"a"', 'HMAC_SECRET: a secret must not be in quotes'],
    ['HMAC_SECRET', 'a\tb', 'HMAC_SECRET: a secret must not have control or invisible characters'],
    ['MAX_BODY_BYTES', '1e309', 'MAX_BODY_BYTES must be an integer from 1 to 1048576'],
    ['METRICS_PORT', '65536', 'METRICS_PORT must be an integer from 0 to 65535'],
    ...['', 'a,', ',a', 'a,,b'].map((value) => [
      'HMAC_SECRET',
      value,
      'HMAC_SECRET must be a secret shared with the clients, not empty, or several, separated by commas',
    ]),
    [
      'SIGNATURE_FAILURES_MAX',
      '0',
      'SIGNATURE_FAILURES_MAX must be an integer from 1 to 1000000000',
    ],
    [
      'SIGNATURE_MAX_AGE_SECONDS',
      '0',
      'SIGNATURE_MAX_AGE_SECONDS must be an integer from 1 to 86400',
    ],
    ['DATABASE_URL', 'mysql://a/b', 'DATABASE_URL must be a URL that begins with postgres://'],
    ['DATABASE_URL', 'postgres://h/db?xyz=1', 'DATABASE_URL: the parameter xyz is not known'],
    [
      'REDIS_URL',
      'localhost:6379',
      'REDIS_URL must be a URL that begins with redis://, redis+sentinel:// or redis+cluster://, or with rediss for TLS',
    ],
    ['RATE_LIMIT_MAX', '0', 'RATE_LIMIT_MAX must be off, or an integer from 1 to 1000000000'],
    [
      'RATE_LIMIT_WINDOW_SECONDS',
      '1.5',
      'RATE_LIMIT_WINDOW_SECONDS must be an integer from 1 to 86400',
    ],
    [
      'IDEMPOTENCY_TTL_SECONDS',
      '-1',
      'IDEMPOTENCY_TTL_SECONDS must be an integer from 1 to 2592000',
    ],
    [
      'IDEMPOTENCY_LEASE_SECONDS',
      '0',
      'IDEMPOTENCY_LEASE_SECONDS must be an integer from 1 to 3600',
    ],
    ['IDEMPOTENCY_MISMATCH_STATUS', '400', 'IDEMPOTENCY_MISMATCH_STATUS must be 409 or 422'],
    ['MAX_BODY_BYTES', '64k', 'MAX_BODY_BYTES must be an integer from 1 to 1048576'],
    ['IDEMPOTENCY_STORE', 'disk', 'IDEMPOTENCY_STORE must be redis, postgres or memory'],
    ['IN_FLIGHT_WAIT_SECONDS', '31', 'IN_FLIGHT_WAIT_SECONDS must be an integer from 0 to 30'],
    ['KEY_RETENTION_DAYS', '-1', 'KEY_RETENTION_DAYS must be an integer from 0 to 36500'],
    ['STORES', 'cloud', 'STORES must be auto or embedded'],
    ['LOG_LEVEL', 'loud', 'LOG_LEVEL must be fatal, error, warn, info, debug, trace or silent'],
    ...['true', '1', '10.0.0.0/33', '10.0.0.1,', 'proxy.local'].map((value) => [
      'TRUST_PROXY',
      value,
      'TRUST_PROXY must be addresses or CIDR ranges, separated by commas, such as 10.0.0.0/8,::1',
    ]),
  ])('refuse %s=%s with the rule', (name, value, message) => {
    expect(() => parseSettings({ [name as string]: value })).toThrow(
      expect.objectContaining({ name: 'StartError', message }),
    )
  })

  test('are refused with one line for all broken rules, without the values', () => {
    const secret = 'postgresql-with-a-password'
    expect(() => parseSettings({ PORT: 'x', DATABASE_URL: secret })).toThrow(
      expect.objectContaining({
        message:
          'PORT must be an integer from 0 to 65535; DATABASE_URL must be a URL that begins with postgres://',
      }),
    )
  })

  test('accept a fraction where a number need not be an integer, and headers with blanks', () => {
    const given = {
      OTEL_TRACES_SAMPLER_ARG: '0.25',
      OTEL_EXPORTER_OTLP_HEADERS: 'Authorization=Basic YQ==, x-scope=a%20b',
    }
    expect(parseSettings(given)).toMatchObject({
      tracesSamplerArg: 0.25,
      tracesHeaders: given.OTEL_EXPORTER_OTLP_HEADERS,
    })
  })

  test('accept blanks inside of a secret, and several secrets', () => {
    expect(parseSettings({ HMAC_SECRET: 'a b,c' }).hmacSecrets).toEqual(['a b', 'c'])
  })

  test('have no secret by default if there is a file of clients', () => {
    expect(parseSettings({ CLIENTS_FILE: 'clients.json' }).hmacSecrets).toEqual([])
    const both = { CLIENTS_FILE: 'clients.json', HMAC_SECRET: 'a secret' }
    expect(parseSettings(both).hmacSecrets).toEqual(['a secret'])
  })

  test('are all in docs/settings.md and .env.example, with the rules that the service prints', () => {
    const read = (name: string) => readFileSync(new URL(`../${name}`, import.meta.url), 'utf8')
    const [document, example] = [read('docs/settings.md'), read('.env.example')]
    expect(document).toContain(`\`\`\`text\n${describeRules().join('\n')}\n\`\`\``)
    for (const rule of describeRules()) {
      const [name] = rule.split(' ')
      expect(document).toContain(`| \`${name}\` |`)
      expect(example).toMatch(new RegExp(`^#${name}=`, 'm'))
    }
  })

  test('accept addresses and ranges of proxies', () => {
    const { trustedProxies } = parseSettings({ TRUST_PROXY: '10.0.0.0/8, 192.168.1.1,fd00::/8' })
    expect(trustedProxies).toEqual(['10.0.0.0/8', '192.168.1.1', 'fd00::/8'])
  })

  describe('in production', () => {
    const complete = {
      NODE_ENV: 'production',
      HMAC_SECRET: 's'.repeat(32),
      DATABASE_URL: 'postgres://user@db/orders',
      REDIS_URL: 'rediss://cache',
    }

    test('are accepted when complete', () => {
      expect(isProduction(parseSettings(complete))).toBe(true)
    })

    test('are accepted without a secret if there is a file of clients', () => {
      const keys = { ...complete, HMAC_SECRET: undefined, CLIENTS_FILE: 'clients.json' }
      expect(parseSettings(keys).hmacSecrets).toEqual([])
      expect(() => parseSettings({ ...keys, HMAC_SECRET: 'short' })).toThrow('32 characters')
    })

    test.each([
      [
        { HMAC_SECRET: undefined },
        'HMAC_SECRET must be set, to 32 characters or more, in production; with CLIENTS_FILE it may be left out',
      ],
      [
        { HMAC_SECRET: 's'.repeat(31) },
        'HMAC_SECRET must be set, to 32 characters or more, in production; with CLIENTS_FILE it may be left out',
      ],
      [
        { HMAC_SECRET: `${'s'.repeat(32)},short` },
        'HMAC_SECRET must be set, to 32 characters or more, in production; with CLIENTS_FILE it may be left out',
      ],
      [{ DATABASE_URL: undefined }, 'DATABASE_URL must be set in production'],
      [{ REDIS_URL: undefined }, 'REDIS_URL must be set in production'],
    ])('are refused with %j', (changed, message) => {
      expect(() => parseSettings({ ...complete, ...changed })).toThrow(message)
    })
  })
})

describe('the process', () => {
  test('reads .env in its folder; the environment wins', async () => {
    const folder = await createTemporaryFolder()
    await writeFile(join(folder, '.env'), 'LOG_LEVEL=loud\nRATE_LIMIT_MAX=none\n')
    const service = await spawnService({ LOG_LEVEL: 'info', RATE_LIMIT_MAX: '' }, { folder })
    expect(await service.ended).toBe(1)
    expect(service.stderr()).toBe(
      'order-once cannot start: RATE_LIMIT_MAX must be off, or an integer from 1 to 1000000000\n',
    )
    const other = await spawnService({}, { folder })
    expect(await other.ended).toBe(1)
    expect(other.stderr()).toContain('LOG_LEVEL must be fatal')
  })

  test('exits with 1 and one line on a bad setting', async () => {
    const service = await spawnService({ LOG_LEVEL: 'loud' })
    expect(await service.ended).toBe(1)
    expect(service.stdout()).toBe('')
    expect(service.stderr()).toBe(
      'order-once cannot start: LOG_LEVEL must be fatal, error, warn, info, debug, trace or silent\n',
    )
  })
})
