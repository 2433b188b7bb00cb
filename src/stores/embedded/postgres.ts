/** A real Postgres from npm that this process starts and owns. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type postgres from 'postgres'
import { StartError } from '../../start-error.ts'
import { LOCKS } from '../locks.ts'
import { createPrimaryClient } from '../postgres-primary.ts'
import { type Cluster, DATABASE, openCluster, runProgram, USER } from './files.ts'
import { freePort } from './free-port.ts'

/** A running Postgres that this process owns until it calls `stop`. */
export interface EmbeddedPostgres {
  /** `postgres://user:password@127.0.0.1:port/database`; the port changes with each start */
  readonly url: string
  /** where the database's files and its log are */
  readonly directory: string
  /**
   * Stops Postgres, which closes every connection. Does nothing if Postgres has ended already.
   *
   * @throws {Error} if Postgres does not stop
   */
  stop(): Promise<void>
}

// The backend of a service that was just killed takes a moment to notice its closed connection.
const LOCK_CONNECT_TIMEOUT_SECONDS = 5
const LOCK_TIMEOUT_MS = 2_000

// What Postgres prints while another one starts or stops here, while processes of the last one end, or
// when its port was taken a moment ago; and for how long the start is retried then.
const RETRYABLE = /postmaster\.pid|shared memory block|could not bind/
const RETRY_TIMEOUT_MS = 10_000

// What initdb prints if the user of the process has no name, as on OpenShift.
const NO_PASSWD_ENTRY = /could not look up effective user ID/

// By default pg_ctl stops waiting after 60 s, but leaves Postgres running. Recovery replays up to 1 GB
// (max_wal_size), which takes less than this on a slow disk.
const PG_CTL_TIMEOUT_SECONDS = 600

/**
 * Starts the Postgres in `dataDir`, which it creates first if it must, or takes over the one that a
 * killed service left running.
 *
 * @param onLost called when Postgres ends, or closes our connection, before `stop`
 * @throws {StartError} if another service uses `dataDir`, if this platform has no Postgres, or if
 * Postgres does not start
 */
export async function startEmbeddedPostgres(
  dataDir: string,
  onLost: () => void = () => {},
): Promise<EmbeddedPostgres> {
  try {
    const cluster = await openCluster(dataDir)
    const password = await fs.readFile(join(cluster.directory, 'password'), 'utf8')
    return await startAndLock(cluster, password, dataDir, onLost)
  } catch (error) {
    if (error instanceof StartError) throw error
    const reason = error instanceof Error ? error.message : String(error)
    const advice = NO_PASSWD_ENTRY.test(reason)
      ? '; add the user to /etc/passwd, or set DATABASE_URL'
      : ''
    throw new StartError(
      `the embedded database in DATA_DIR ${dataDir} did not start: ${reason}${advice}`,
      { cause: error },
    )
  }
}

/**
 * Takes the owner lock, and starts Postgres if none responds. Of several services, the one that has the
 * lock owns Postgres, whichever started it.
 */
async function startAndLock(
  cluster: Cluster,
  password: string,
  dataDir: string,
  onLost: () => void,
): Promise<EmbeddedPostgres> {
  const retryTimeout = AbortSignal.timeout(RETRY_TIMEOUT_MS)
  let hasStarted = false
  let isOwner = false
  const onClose = () => {
    if (isOwner) onLost()
  }
  let failure: unknown = new Error('Postgres refuses the connection')
  for (;;) {
    const port = readPidFile(cluster)?.port
    const url = `postgres://${USER}:${password}@127.0.0.1:${port}/${DATABASE}`
    const lock = port && (await acquireLock(url, dataDir, onClose))
    if (lock) {
      isOwner = true
      return {
        url,
        directory: cluster.directory,
        stop: () => {
          isOwner = false
          return stop(cluster, lock)
        },
      }
    }
    if (retryTimeout.aborted) {
      // It refuses connections, so no other service can have taken it over.
      if (hasStarted) await pgCtl(cluster, 'stop', '-m', 'fast')
      throw failure
    }
    removeForeignPidFile(cluster)
    try {
      await pgCtl(cluster, 'start', '-o', `-p ${await freePort()}`)
      hasStarted = true
    } catch (error) {
      if (!RETRYABLE.test(String(error))) throw error
      if (!hasStarted) failure = error
      await sleep(250)
    }
  }
}

/**
 * Takes the owner lock. It belongs to its connection, which the kernel closes however the service ends:
 * nothing is left behind that a later start would have to check.
 *
 * @returns undefined if no Postgres of ours responds at `url`
 */
async function acquireLock(
  url: string,
  dataDir: string,
  onclose: () => void,
): Promise<postgres.Sql | undefined> {
  const lock = await createPrimaryClient(url, {
    connect_timeout: LOCK_CONNECT_TIMEOUT_SECONDS,
    onclose,
  })
  const timeout = AbortSignal.timeout(LOCK_TIMEOUT_MS)
  try {
    while (!timeout.aborted) {
      if (await tryLock(lock)) return lock
      await sleep(50)
    }
  } catch {
    await lock.end({ timeout: 0 })
    return undefined
  }
  await lock.end({ timeout: 0 })
  throw new StartError(
    `DATA_DIR ${dataDir} is in use by another order-once service (stop it, or set DATA_DIR to another folder)`,
  )
}

async function tryLock(lock: postgres.Sql): Promise<boolean> {
  const [row] = await lock`select pg_try_advisory_lock(${LOCKS.embeddedOwner}) as locked`
  return row?.locked === true
}

async function stop(cluster: Cluster, lock: postgres.Sql): Promise<void> {
  try {
    // The owner can take the lock again. If not, our Postgres has ended, and another service owns the
    // one that runs here now.
    const isOwner = await tryLock(lock).catch(() => false)
    // Still locked, so that no other service takes over a Postgres that is about to stop.
    if (isOwner) {
      await pgCtl(cluster, 'stop', '-m', 'fast').catch((error) => {
        // A backend can respond for a moment after its Postgres was killed.
        if (isRunning(cluster)) throw error
      })
    }
  } finally {
    await lock.end({ timeout: 0 })
  }
}

const pgCtl = (cluster: Cluster, ...args: string[]) =>
  runProgram(cluster, 'pg_ctl', [
    '-D',
    cluster.data,
    '-s',
    '-w',
    '-t',
    String(PG_CTL_TIMEOUT_SECONDS),
    ...args,
  ])

/** Reads the process id and the port of a running Postgres. */
function readPidFile({ data }: Cluster) {
  const path = join(data, 'postmaster.pid')
  if (!existsSync(path)) return undefined
  const [pid, directory, , port] = readFileSync(path, 'utf8').split('\n')
  // In a copied directory the file belongs to the Postgres of the original.
  return { path, pid: Number(pid), port: directory === data ? Number(port) : 0 }
}

/**
 * Removes the file of a Postgres that has ended if its process id now belongs to another program:
 * Postgres would refuse to start. (If no process has that id, Postgres itself removes the file.)
 * Synchronous, so that no time passes between the check and the removal.
 */
function removeForeignPidFile(cluster: Cluster): void {
  const file = readPidFile(cluster)
  const command = file && readCommandLine(file.pid)
  // Postgres runs with `-D <its directory>`.
  if (file && command !== undefined && !command.includes(cluster.data)) rmSync(file.path)
}

/** Whether the Postgres of the process id file runs. */
function isRunning(cluster: Cluster): boolean {
  const file = readPidFile(cluster)
  return file !== undefined && readCommandLine(file.pid)?.includes(cluster.data) === true
}

function readCommandLine(pid: number): string | undefined {
  try {
    if (process.platform === 'linux') return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
    return execFileSync('ps', ['-ww', '-o', 'args=', '-p', String(pid)], { encoding: 'utf8' })
  } catch {
    return undefined // there is no such process, or it cannot be read
  }
}
