import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import type { TestProject } from 'vitest/node'
import { startEmbeddedPostgres } from '../../src/storage/embedded-postgres.ts'
import { migrateDatabase } from '../../src/storage/migrate.ts'
import { administer, createDatabase, TEMPLATE } from './database.ts'
import { freePort } from './free-port.ts'
import { until } from './until.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** a Postgres for the tests alone; every test file makes a database of its own in it */
    postgresUrl: string
    /** a Redis in which every test file has a key prefix of its own; '' if there is none */
    redisUrl: string
  }
}

/** Starts the servers that the tests share, and stops them in the end. */
export default async function setup(project: TestProject) {
  const directory = await mkdtemp(join(tmpdir(), 'order-once-test-'))
  const postgres = await startEmbeddedPostgres(directory)
  // No test's database has to outlive a power cut.
  await administer(postgres.url, (sql) => sql`alter system set fsync = off`)
  await administer(postgres.url, (sql) => sql`select pg_reload_conf()`)
  await migrateDatabase(await createDatabase(postgres.url, TEMPLATE))
  const redis = await startRedis()
  project.provide('postgresUrl', postgres.url)
  project.provide('redisUrl', redis?.url ?? '')

  return async () => {
    await redis?.stop()
    await postgres.stop()
    await rm(postgres.directory, { recursive: true, force: true })
    await rm(directory, { recursive: true, force: true })
  }
}

interface RunningRedis {
  url: string
  stop(): Promise<void>
}

async function startRedis(): Promise<RunningRedis | undefined> {
  const given = process.env.TEST_REDIS_URL
  if (given) return { url: given, stop: async () => {} }

  const server = ['redis-server', 'valkey-server'].find((name) => runs(name, '--version'))
  if (server) {
    const port = await freePort()
    const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
    return answering(port, spawn(server, args, { stdio: 'ignore' }))
  }
  if (runs('docker', 'info')) {
    const port = await freePort()
    const args = ['run', '--rm', '--publish', `127.0.0.1:${port}:6379`, 'redis:7-alpine']
    return answering(port, spawn('docker', args, { stdio: 'ignore' }))
  }

  const missing =
    'THE TESTS ON REDIS ARE LEFT OUT: no TEST_REDIS_URL, no redis-server or valkey-server on the PATH, no Docker.'
  if (process.env.CI) throw new Error(missing)
  console.error(`\n${missing}\n`)
  return undefined
}

function runs(command: string, ...args: string[]): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

async function answering(port: number, child: ChildProcess): Promise<RunningRedis> {
  const url = `redis://127.0.0.1:${port}`
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => null })
  redis.on('error', () => {})
  // A container's image may have to be fetched first.
  await until(
    () =>
      redis.ping().then(
        () => true,
        () =>
          redis.connect().then(
            () => true,
            () => false,
          ),
      ),
    120_000,
  )
  redis.disconnect()
  return {
    url,
    stop: async () => {
      child.kill()
      await once(child, 'exit')
    },
  }
}
