import { readFile } from 'node:fs/promises'
import { beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { parseSettings } from '../../src/settings.ts'

const ROOT = new URL('../../', import.meta.url)

// biome-ignore lint/suspicious/noExplicitAny: the file is what it is, and the tests look into it
let services: Record<string, any>

beforeAll(async () => {
  services = parse(await readFile(new URL('docker-compose.yml', ROOT), 'utf8')).services
})

describe('the service of docker-compose.yml', () => {
  test('starts only when its profile is asked for, and the stores without it', () => {
    const started = (profile?: string) =>
      Object.keys(services).filter((name) => {
        const { profiles = [] } = services[name]
        return profiles.length === 0 || profiles.includes(profile)
      })
    expect(started()).toEqual(['postgres', 'redis'])
    expect(started('service')).toEqual(['postgres', 'redis', 'service'])
  })

  test('waits for healthy stores and finds them by their names', () => {
    const { depends_on, environment } = services.service
    const database = new URL(environment.DATABASE_URL)
    const redis = new URL(environment.REDIS_URL)
    expect([database.hostname, redis.hostname]).toEqual(['postgres', 'redis'])
    expect([database.port, redis.port]).toEqual(['5432', '6379'])
    expect(services.postgres.environment).toEqual({
      POSTGRES_USER: database.username,
      POSTGRES_PASSWORD: database.password,
      POSTGRES_DB: database.pathname.slice(1),
    })
    for (const name of ['postgres', 'redis']) {
      expect(depends_on[name]).toEqual({ condition: 'service_healthy' })
    }
  })

  test('has settings that the service takes, if none are given from outside', () => {
    const environment = interpolate(services.service.environment, {})
    const settings = parseSettings(environment)
    expect(settings).toMatchObject({
      production: false,
      host: '0.0.0.0',
      port: 8080,
      hmacSecrets: ['super-secret-key'],
    })
    expect(services.service.ports).toEqual([`127.0.0.1:8080:${settings.port}`])
  })

  test('takes those that are given', () => {
    const given = { NODE_ENV: 'production', HMAC_SECRET: 's'.repeat(32), RATE_LIMIT_MAX: '7' }
    const settings = parseSettings(interpolate(services.service.environment, given))
    expect(settings).toMatchObject({
      production: true,
      hmacSecrets: [given.HMAC_SECRET],
      rateLimit: { max: 7 },
    })
  })

  test('has time to finish its requests', async () => {
    const server = await readFile(new URL('src/server.ts', ROOT), 'utf8')
    const [, closeDelayMs = ''] = /CLOSE_DELAY_MS = ([\d_]+)/.exec(server) ?? []
    const graceMs = Number.parseInt(services.service.stop_grace_period, 10) * 1000
    expect(graceMs).toBeGreaterThan(Number(closeDelayMs.replaceAll('_', '')))
    expect(services.service.init).toBe(true)
  })
})

/** As docker compose does: `${NAME:-default}`, and a name without a value is taken from outside. */
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
