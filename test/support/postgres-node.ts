/** Postgres servers that replicate: a primary and its standbys, as processes of their own. */
import { type ChildProcess, execFileSync, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { chmod, chown, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { spawnChild } from './child-processes.ts'
import { until } from './until.ts'

const DEBIAN_FOLDER = '/usr/lib/postgresql'

/** A folder with all programs of Postgres: the Postgres from npm has no `pg_basebackup`. */
export const postgresPrograms = [
  ...(process.env.PATH ?? '').split(':'),
  ...(existsSync(DEBIAN_FOLDER)
    ? readdirSync(DEBIAN_FOLDER).map((version) => join(DEBIAN_FOLDER, version, 'bin'))
    : []),
].find((folder) =>
  ['initdb', 'postgres', 'pg_basebackup'].every((name) => existsSync(join(folder, name))),
)

/** A server starts within seconds; a standby first applies what its backup needs. */
const START_TIMEOUT_MS = 60_000

/** Who runs Postgres: for root, whom Postgres refuses, another user; undefined: this user. */
export const account = findAccount()

/** The superuser, who may replicate, and the owner of the database `orders`, who may nothing else. */
const ADMIN = 'admin'
const OWNER = 'order_once'

export class PostgresNode {
  readonly name: string
  readonly port: number
  readonly #folder: string
  #child: ChildProcess | undefined
  #frozen: number[] = []
  #isMounted = false

  private constructor(name: string, port: number, folder: string) {
    this.name = name
    this.port = port
    this.#folder = folder
  }

  /**
   * Starts a primary with an empty database `orders`.
   *
   * @param options `diskMb`: puts its files on a disk (tmpfs) of this size, which needs root
   */
  static async startPrimary({
    diskMb,
  }: {
    diskMb?: number | undefined
  } = {}): Promise<PostgresNode> {
    const node = await PostgresNode.#create('primary', diskMb)
    run('initdb', ['-D', node.#data, '-U', ADMIN, '--auth', 'trust', '--encoding', 'UTF8'])
    await node.start()
    await node.administer(async (sql) => {
      await sql.unsafe(`create role ${OWNER} login`)
      await sql.unsafe(`create database orders owner ${OWNER}`)
    }, 'postgres')
    return node
  }

  /** Starts a copy of this server that is no standby: both are primaries, on one timeline. */
  async addCopy(): Promise<PostgresNode> {
    const node = await PostgresNode.#create('copy')
    const source = `host=127.0.0.1 port=${this.port} user=${ADMIN}`
    run('pg_basebackup', ['-D', node.#data, '-d', source, '-c', 'fast'])
    await node.start()
    return node
  }

  /** Starts a standby of this server, by `pg_basebackup`. */
  async addStandby(name = 'standby'): Promise<PostgresNode> {
    const node = await PostgresNode.#create(name)
    const source = `host=127.0.0.1 port=${this.port} user=${ADMIN} application_name=${name}`
    run('pg_basebackup', ['-D', node.#data, '-d', source, '-R', '-c', 'fast'])
    await node.start()
    await this.#waitUntilStreaming(name)
    return node
  }

  get url(): string {
    return `postgres://${OWNER}@${this.host}/orders`
  }

  get host(): string {
    return `127.0.0.1:${this.port}`
  }

  get #data(): string {
    return join(this.#folder, 'data')
  }

  /** Runs statements as the superuser, on a connection of their own. */
  async administer<T>(
    statements: (sql: postgres.Sql) => Promise<T>,
    database = 'orders',
  ): Promise<T> {
    const sql = postgres(`postgres://${ADMIN}@${this.host}/${database}`, {
      ...{ max: 1, fetch_types: false, connect_timeout: 5, onnotice: () => {} },
    })
    try {
      return await statements(sql)
    } finally {
      await sql.end({ timeout: 1 })
    }
  }

  /** Changes a setting of the running server; an empty value resets it. */
  async set(setting: string, value: string): Promise<void> {
    await this.administer(async (sql) => {
      await sql.unsafe(`alter system set ${setting} = '${value}'`)
      await sql`select pg_reload_conf()`
    })
    await until(() =>
      this.administer(async (sql) => {
        const [row] = await sql`select current_setting(${setting}) as value`
        return row?.value === value
      }),
    )
  }

  /** Makes each commit wait for the standby of this name. */
  setSynchronousStandby(name: string): Promise<void> {
    return this.set('synchronous_standby_names', name)
  }

  /** Starts it, and waits until it accepts connections. */
  async start(): Promise<void> {
    const settings = {
      ...{ port: this.port, listen_addresses: '127.0.0.1', unix_socket_directories: '' },
      ...{ max_connections: 100, hot_standby: 'on', wal_keep_size: '256MB' },
      // A standby connects again soon, so that tests are fast.
      ...{ wal_retrieve_retry_interval: '200ms', shared_buffers: '16MB' },
    }
    const args = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    this.#child = spawnChild(program('postgres'), ['-D', this.#data, ...args], {
      ...account,
      cwd: '/',
      stdio: 'ignore',
    })
    await until(() => this.#isReady(), START_TIMEOUT_MS)
  }

  /** Promotes this standby. @returns when it accepted writes, by `performance.now()` */
  async promote(): Promise<number> {
    return this.administer(async (sql) => {
      // A synchronous standby of its own it has none.
      await sql.unsafe(`alter system set synchronous_standby_names = ''`)
      await sql`select pg_reload_conf()`
      await sql`select pg_promote()`
      return performance.now()
    })
  }

  /** Makes this stopped primary a standby of another server that was promoted after it had stopped. */
  async follow(primary: PostgresNode): Promise<void> {
    const source = `host=127.0.0.1 port=${primary.port} user=${ADMIN} application_name=${this.name}`
    await writeFile(join(this.#data, 'standby.signal'), '')
    await writeFile(join(this.#data, 'postgresql.auto.conf'), `primary_conninfo = '${source}'\n`)
    await this.start()
    await primary.#waitUntilStreaming(this.name)
  }

  /** Kills the postmaster; its other processes then end by themselves. */
  kill(): Promise<void> {
    return this.#end('SIGKILL')
  }

  /** Stops it in order (`fast`): sessions are ended, and the standbys receive all. */
  stop(): Promise<void> {
    return this.#end('SIGINT')
  }

  /** Fills the disk of its files to the last byte. */
  fillDisk(): void {
    const filler = join(this.#folder, 'filler')
    // Ends with an error: no space left on device.
    spawnSync('dd', ['if=/dev/zero', `of=${filler}`, 'bs=64k'], { stdio: 'ignore' })
  }

  /** Stops all its processes where they are (SIGSTOP), until `thaw`. */
  freeze(): void {
    const postmaster = this.#child?.pid
    if (postmaster === undefined) return
    process.kill(postmaster, 'SIGSTOP') // first, since it could start further processes
    this.#frozen = [postmaster, ...readChildren(postmaster)]
    for (const pid of this.#frozen.slice(1)) sendSignal(pid, 'SIGSTOP')
  }

  thaw(): void {
    for (const pid of this.#frozen.splice(0).reverse()) sendSignal(pid, 'SIGCONT')
  }

  /** Ends it, and removes its files. */
  async remove(): Promise<void> {
    this.thaw()
    await this.#end('SIGQUIT')
    if (this.#isMounted) execFileSync('umount', ['--lazy', this.#folder])
    await rm(this.#folder, { recursive: true, force: true, maxRetries: 10 })
  }

  static async #create(name: string, diskMb?: number): Promise<PostgresNode> {
    const folder = await mkdtemp(join(tmpdir(), 'order-once-pg-'))
    const node = new PostgresNode(name, await freePort(), folder)
    if (diskMb !== undefined) {
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${diskMb}m`, 'tmpfs', folder])
      node.#isMounted = true
    }
    await chmod(folder, 0o755)
    await mkdir(node.#data, { mode: 0o700 })
    if (account) await chown(node.#data, account.uid, account.gid)
    return node
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, 'exit')
    child.kill(signal)
    await exit
  }

  async #isReady(): Promise<boolean> {
    if (this.#child?.exitCode !== null) {
      throw new Error(`${this.name} did not start (${this.#child?.exitCode})`)
    }
    return this.administer((sql) => sql`select 1`, 'postgres').then(
      () => true,
      () => false,
    )
  }

  async #waitUntilStreaming(name: string): Promise<void> {
    await until(
      () =>
        this.administer(async (sql) => {
          const found = await sql`
            select from pg_stat_replication where application_name = ${name} and state = 'streaming'`
          return found.length > 0
        }, 'postgres'),
      START_TIMEOUT_MS,
    )
  }
}

/** The URL of the database `orders` on several servers. */
export function urlOfHosts(...hosts: (PostgresNode | string)[]): string {
  const places = hosts.map((host) => (typeof host === 'string' ? host : host.host))
  return `postgres://${OWNER}@${places.join(',')}/orders`
}

function program(name: string): string {
  if (postgresPrograms === undefined) throw new Error('there is no pg_basebackup on this machine')
  return join(postgresPrograms, name)
}

function run(name: string, args: string[]): void {
  execFileSync(program(name), args, { ...account, cwd: '/', stdio: ['ignore', 'ignore', 'pipe'] })
}

function findAccount(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined
  for (const user of ['postgres', 'nobody']) {
    const [uid, gid] = ['-u', '-g'].map((id) => spawnSync('id', [id, user], { encoding: 'utf8' }))
    if (uid?.status === 0 && gid?.status === 0) return { uid: +uid.stdout, gid: +gid.stdout }
  }
  return undefined
}

/** The child processes, as Linux lists them. */
function readChildren(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
  return text.split(' ').filter(Boolean).map(Number)
}

/** A process may have ended. */
function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}
