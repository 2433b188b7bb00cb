import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { StartError } from '../../start-error.ts'
import { LOCKS } from '../locks.ts'
import { type Cluster, DATABASE, openCluster, runProgram, USER } from './files.ts'
import { freePort } from './free-port.ts'

/** A running Postgres that this process owns until it calls `stop`. */
export interface EmbeddedPostgres {
  /** `postgres://user:password@127.0.0.1:port/database`; the port is another one after a restart. */
  readonly url: string
  /** Where the database's files and its log are. */
  readonly directory: string
  /**
   * Stops Postgres, which closes every connection; quiet if Postgres is already gone.
   *
   * @throws Error if Postgres runs on nevertheless.
   */
  stop(): Promise<void>
}

// The backend of a service that was just killed takes a moment to see its connection close.
const RELEASE_MS = 2_000

// Another Postgres may be starting or stopping here, the last one's orphans may be ending, or the
// port was taken just now: what Postgres says then, and for how long it is worth another try.
const PASSING = /postmaster\.pid|shared memory block|could not bind/
const SETTLE_MS = 10_000

// pg_ctl gives up after 60 s, but leaves Postgres running. Recovery replays up to 1 GB
// (max_wal_size), which a slow disk does in less than this.
const PG_CTL_SECONDS = 600

/**
 * Starts the Postgres that lives in `dataDir`, creating it at first, or takes over the one that a
 * killed service left running.
 *
 * @param onLost called when Postgres ends, or lets go of us, without being told to
 * @throws StartError if another service is using `dataDir`, if this platform has no Postgres, or if
 * Postgres does not start.
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
    throw new StartError(`The embedded database in ${dataDir} did not start: ${reason}`, {
      cause: error,
    })
  }
}

/**
 * Gets the owner lock, starting Postgres if none answers. Who started it does not matter: of several
 * services, the one that gets the lock owns it.
 */
async function startAndLock(
  cluster: Cluster,
  password: string,
  dataDir: string,
  onLost: () => void,
): Promise<EmbeddedPostgres> {
  const settle = AbortSignal.timeout(SETTLE_MS)
  let started = false
  let owning = false
  const onClose = () => {
    if (owning) onLost()
  }
  let failure: unknown = new Error('Postgres refuses our connection')
  for (;;) {
    const port = readPidFile(cluster)?.port
    const url = `postgres://${USER}:${password}@127.0.0.1:${port}/${DATABASE}`
    const lock = port && (await acquireLock(url, dataDir, onClose))
    if (lock) {
      owning = true
      return {
        url,
        directory: cluster.directory,
        stop: () => {
          owning = false
          return stop(cluster, lock)
        },
      }
    }
    if (settle.aborted) {
      // Nobody can have taken it over, for it lets nobody in.
      if (started) await pgCtl(cluster, 'stop', '-m', 'fast')
      throw failure
    }
    removeForeignPidFile(cluster)
    try {
      await pgCtl(cluster, 'start', '-o', `-p ${await freePort()}`)
      started = true
    } catch (error) {
      if (!PASSING.test(String(error))) throw error
      if (!started) failure = error
      await sleep(250)
    }
  }
}

/**
 * The lock belongs to its connection, which the kernel closes when the service dies in any way; so
 * nothing is left behind that a later start would have to judge. Returns undefined if no Postgres of
 * ours answers at `url`.
 */
async function acquireLock(
  url: string,
  dataDir: string,
  onclose: () => void,
): Promise<postgres.Sql | undefined> {
  const lock = postgres(url, {
    max: 1,
    max_lifetime: null, // by default the client replaces a connection after 30 to 60 minutes
    fetch_types: false,
    connect_timeout: 5,
    onclose,
  })
  const patience = AbortSignal.timeout(RELEASE_MS)
  try {
    while (!patience.aborted) {
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
    // A lock can be taken again by its holder. If it can't be, our Postgres died, and the one that
    // runs here now is another service's.
    const owned = await tryLock(lock).catch(() => false)
    // Still locked, so that nobody takes over a Postgres that is about to stop.
    if (owned) await pgCtl(cluster, 'stop', '-m', 'fast')
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
    String(PG_CTL_SECONDS),
    ...args,
  ])

/** Reads what a running Postgres says of itself: its process id and its port. */
function readPidFile({ data }: Cluster) {
  const path = join(data, 'postmaster.pid')
  if (!existsSync(path)) return undefined
  const [pid, directory, , port] = readFileSync(path, 'utf8').split('\n')
  // In a copied directory the file tells of the original's Postgres.
  return { path, pid: Number(pid), port: directory === data ? Number(port) : 0 }
}

/**
 * Removes the file of a Postgres that died if its process id now belongs to another program, for
 * Postgres would refuse to start. (If nothing has that id, Postgres itself removes the file.)
 * Synchronous, so that no time passes between looking and removing.
 */
function removeForeignPidFile(cluster: Cluster): void {
  const file = readPidFile(cluster)
  const command = file && commandOf(file.pid)
  // Postgres runs with `-D <its directory>`.
  if (file && command !== undefined && !command.includes(cluster.data)) rmSync(file.path)
}

function commandOf(pid: number): string | undefined {
  try {
    if (process.platform === 'linux') return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
    return execFileSync('ps', ['-ww', '-o', 'args=', '-p', String(pid)], { encoding: 'utf8' })
  } catch {
    return undefined // no such process, or no way to know
  }
}
