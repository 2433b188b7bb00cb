import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { COMPOSE } from '../../src/stores/locate.ts'

test('docker-compose.yml publishes the stores where the service looks for them', async () => {
  const file = await readFile(new URL('../../docker-compose.yml', import.meta.url), 'utf8')
  const { services, volumes } = parse(file)
  const database = new URL(COMPOSE.databaseUrl)
  expect(services.postgres).toMatchObject({
    image: expect.stringMatching(/^postgres:16/),
    ports: [`127.0.0.1:${database.port}:5432`],
    environment: {
      POSTGRES_USER: database.username,
      POSTGRES_PASSWORD: database.password,
      POSTGRES_DB: database.pathname.slice(1),
    },
  })
  expect(services.redis).toMatchObject({
    image: expect.stringMatching(/^redis:7/),
    ports: [`127.0.0.1:${new URL(COMPOSE.redisUrl).port}:6379`],
  })
  expect(services.redis.command.join(' ')).toContain('--maxmemory-policy allkeys-lru')
  for (const service of [services.postgres, services.redis]) {
    expect(service.profiles).toBeUndefined() // they start with a plain `docker compose up`
    expect(service.healthcheck).toMatchObject({ test: expect.any(Array) })
    expect(Object.keys(volumes)).toContain(service.volumes[0]?.split(':')[0])
  }
})
