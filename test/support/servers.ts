/**
 * The Postgres and the Redis of one test run, as a program: it prints their URLs in one line of JSON, and
 * stops them and removes all files of the run when its standard input ends. That happens also when the
 * test run is killed.
 */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readdir, readFile, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { startEmbeddedPostgres } from '../../src/stores/embedded/postgres.ts'
import { migrateDatabase } from '../../src/stores/migrate.ts'
import { administer, createDatabase, TEMPLATE } from './database.ts'
import { redisServer, startPrivateRedis, startRedisContainer } from './private-redis.ts'
import { SILENT_LOG } from './silent-log.ts'
import { until } from './until.ts'

/** What the program prints. */
export interface Servers {
  /** for all files of the run */
  folder: string
  postgresUrl: string
  /** undefined: there is no Redis on this machine */
  redisUrl: string | undefined
}

const folder = await mkdtemp(join(tmpdir(), 'order-once-test-'))
await chmod(folder, 0o755) // for root, another user runs Postgres in it
try {
  const postgres = await startPostgres()
  const redis = await startRedis()
  try {
    const servers: Servers = { folder, postgresUrl: postgres.url, redisUrl: redis?.url }
    console.log(JSON.stringify(servers))
    await once(process.stdin.resume(), 'end')
  } finally {
    await redis?.stop()
    await postgres.stop()
    await rm(postgres.directory, { recursive: true })
  }
} finally {
  await removeDatabases()
  // A process that was just killed may still be writing its last file.
  await rm(folder, { recursive: true, maxRetries: 10 })
}

async function startPostgres() {
  const postgres = await startEmbeddedPostgres(folder)
  // No test's database has to outlive a power cut.
  await administer(postgres.url, (sql) => sql`alter system set fsync = off`)
  await administer(postgres.url, (sql) => sql`select pg_reload_conf()`)
  await migrateDatabase(await createDatabase(postgres.url, TEMPLATE), SILENT_LOG)
  return postgres
}

async function startRedis() {
  const given = process.env.TEST_REDIS_URL
  if (given) return { url: given, stop: async () => {} }
  return redisServer ? startPrivateRedis() : startRedisContainer()
}

/** Stops each Postgres that a killed test has left running, and removes its files: for root, elsewhere. */
async function removeDatabases(): Promise<void> {
  for (const path of await readdir(folder, { recursive: true })) {
    if (basename(path) !== 'postgres') continue
    const directory = await realpath(join(folder, path)).catch(() => undefined)
    if (directory === undefined) continue
    const data = join(directory, 'data')
    const pidFile = await readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => undefined)
    if (pidFile === undefined) continue
    const pid = Number(pidFile.split('\n')[0])
    if (readCommand(pid).includes(data)) {
      process.kill(pid, 'SIGQUIT') // without a checkpoint
      await until(() => readCommand(pid) === '')
    }
    await rm(directory, { recursive: true })
  }
}

/** The command line of a process; '' if there is none. */
function readCommand(pid: number): string {
  try {
    return execFileSync('ps', ['-ww', '-o', 'args=', '-p', `${pid}`], { encoding: 'utf8' })
  } catch {
    return ''
  }
}
