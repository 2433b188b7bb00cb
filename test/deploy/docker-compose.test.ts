import { readFile } from 'node:fs/promises'
import { beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { SHUTDOWN_TIMEOUT_MS } from '../../src/limits.ts'
import { parseSettings } from '../../src/settings.ts'
import { COMPOSE } from '../../src/stores/locate.ts'

// Checks what docker-compose.yml and the service must agree on. `.ci/image` starts the real containers.

// biome-ignore lint/suspicious/noExplicitAny: the file has no type; the tests check its content
let compose: { services: Record<string, any>; volumes: Record<string, unknown> }

beforeAll(async () => {
  const file = new URL('../../docker-compose.yml', import.meta.url)
  compose = parse(await readFile(file, 'utf8'))
})

describe('the stores of docker-compose.yml', () => {
  test('start without a profile, and the service only with its own', () => {
    const profiles = Object.entries(compose.services).map(([name, service]) => [
      name,
      service.profiles,
    ])
    expect(profiles).toEqual([
      ['postgres', undefined],
      ['redis', undefined],
      ['service', ['service']],
    ])
  })

  test('are published where `npm start` looks for them', () => {
    const database = new URL(COMPOSE.databaseUrl)
    const { postgres, redis } = compose.services
    expect(postgres).toMatchObject({
      image: expect.stringMatching(/^postgres:16/),
      ports: [`127.0.0.1:${database.port}:5432`],
      environment: postgresAccount(database),
    })
    expect(redis).toMatchObject({
      image: expect.stringMatching(/^redis:7/),
      ports: [`127.0.0.1:${new URL(COMPOSE.redisUrl).port}:6379`],
    })
  })

  test('have a health check and a volume', () => {
    const { postgres, redis } = compose.services
    for (const store of [postgres, redis]) {
      expect(store.healthcheck).toMatchObject({ test: expect.any(Array) })
      expect(Object.keys(compose.volumes)).toContain(store.volumes[0].split(':')[0])
    }
  })

  test('let Redis evict the keys that were not used for longest', () => {
    expect(compose.services.redis.command.join(' ')).toContain('--maxmemory-policy allkeys-lru')
  })
})

describe('the service of docker-compose.yml', () => {
  test('waits until the stores are healthy and connects to them by name', () => {
    const { postgres, service } = compose.services
    const database = new URL(service.environment.DATABASE_URL)
    const redis = new URL(service.environment.REDIS_URL)
    expect([database.host, redis.host]).toEqual(['postgres:5432', 'redis:6379'])
    expect(postgres.environment).toEqual(postgresAccount(database))
    expect(service.depends_on).toEqual({
      postgres: { condition: 'service_healthy' },
      redis: { condition: 'service_healthy' },
    })
  })

  test('has valid settings for development by default', () => {
    const { environment, ports } = compose.services.service
    const settings = parseSettings(interpolate(environment, {}))
    expect(settings).toMatchObject({
      environment: 'development',
      host: '0.0.0.0',
      port: 8080,
      hmacSecrets: ['super-secret-key'],
    })
    expect(ports).toEqual([`127.0.0.1:8080:${settings.port}`])
  })

  test('takes settings from the environment of docker compose', () => {
    const given = { NODE_ENV: 'production', HMAC_SECRET: 's'.repeat(32), RATE_LIMIT_MAX: '7' }
    const settings = parseSettings(interpolate(compose.services.service.environment, given))
    expect(settings).toMatchObject({
      environment: 'production',
      hmacSecrets: [given.HMAC_SECRET],
      rateLimitMax: 7,
    })
  })

  test('has more time than the service needs to close', () => {
    const { init, stop_grace_period } = compose.services.service
    expect(stop_grace_period).toMatch(/^\d+s$/)
    expect(Number.parseInt(stop_grace_period, 10) * 1000).toBeGreaterThan(SHUTDOWN_TIMEOUT_MS)
    expect(init).toBe(true) // process 1 passes SIGTERM on while node still starts
  })
})

/** The variables with which the Postgres image creates the account and database of a URL. */
function postgresAccount(url: URL) {
  return {
    POSTGRES_USER: url.username,
    POSTGRES_PASSWORD: url.password,
    POSTGRES_DB: url.pathname.slice(1),
  }
}

/** Replaces `${NAME:-default}` and fills in names without a value, as docker compose does. */
function interpolate(
  environment: Record<string, string | null>,
  given: Record<string, string>,
): Record<string, string> {
  const entries = Object.entries(environment).map(([name, value]) => [
    name,
    value === null
      ? given[name]
      : value.replace(
          /\$\{(\w+):-([^}]*)\}/g,
          (_, variable, byDefault) => given[variable] || byDefault,
        ),
  ])
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined))
}
