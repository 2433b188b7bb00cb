import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { startEmbeddedPostgres } from '../../src/stores/embedded/postgres.ts'
import { migrateDatabase } from '../../src/stores/migrate.ts'
import { chromiumPath } from './chromium.ts'
import { administer, createDatabase, TEMPLATE } from './database.ts'
import {
  type PrivateRedis,
  redisServer,
  startPrivateRedis,
  startRedisContainer,
} from './private-redis.ts'
import { hasPromtool } from './promtool.ts'
import { SILENT_LOG } from './silent-log.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** a Postgres for the tests alone; every test file makes a database of its own in it */
    postgresUrl: string
    /** a Redis in which every test file has a key prefix of its own; '' if there is none */
    redisUrl: string
  }
}

/** Builds the service, whose processes some tests start, and starts the servers that the tests share. */
export default async function setup(project: TestProject) {
  execFileSync('npm', ['run', '--silent', 'build'], { stdio: 'inherit' })
  if (chromiumPath === undefined) {
    complain('THE TESTS IN A BROWSER ARE LEFT OUT: no chromium in /usr/bin, no CHROMIUM_PATH.')
  }
  if (!hasPromtool) {
    complain('THE CHECKS OF METRICS AND ALERTS ARE LEFT OUT: no promtool on the PATH.')
  }
  const directory = await mkdtemp(join(tmpdir(), 'order-once-test-'))
  const postgres = await startEmbeddedPostgres(directory)
  // No test's database has to outlive a power cut.
  await administer(postgres.url, (sql) => sql`alter system set fsync = off`)
  await administer(postgres.url, (sql) => sql`select pg_reload_conf()`)
  await migrateDatabase(await createDatabase(postgres.url, TEMPLATE), SILENT_LOG)
  const redis = await redisForTests()
  project.provide('postgresUrl', postgres.url)
  project.provide('redisUrl', redis?.url ?? '')

  return async () => {
    await redis?.stop()
    await postgres.stop()
    await rm(postgres.directory, { recursive: true, force: true })
    await rm(directory, { recursive: true, force: true })
  }
}

async function redisForTests(): Promise<Pick<PrivateRedis, 'url' | 'stop'> | undefined> {
  if (redisServer === undefined) {
    complain(
      'THE TESTS THAT STOP A REDIS ARE LEFT OUT: no redis-server or valkey-server on the PATH.',
    )
  }
  const given = process.env.TEST_REDIS_URL
  if (given) return { url: given, stop: async () => {} }
  const redis = redisServer ? await startPrivateRedis() : await startRedisContainer()
  if (redis === undefined) {
    complain('THE TESTS ON REDIS ARE LEFT OUT: no TEST_REDIS_URL, no redis-server, no Docker.')
  }
  return redis
}

/** Says loudly what cannot be tested here; in CI, where everything must be, that is a failure. */
function complain(what: string): void {
  if (process.env.CI) throw new Error(what)
  console.error(`\n${what}\n`)
}
