import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import postgres from 'postgres'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/stores/embedded/postgres.ts'
import { until } from '../support/until.ts'
import { disown, own, signal } from './owned-processes.ts'

/** A Postgres of one's own that can be killed, started again and paused. */
export class PostgresServer {
  readonly #folder: string
  #running: EmbeddedPostgres
  #postmaster: number
  #paused: number[] = []
  #restarting: Promise<void> | undefined

  private constructor(folder: string, running: EmbeddedPostgres, postmaster: number) {
    this.#folder = folder
    this.#running = running
    this.#postmaster = postmaster
  }

  /** @throws if Postgres does not start */
  static async start(folder: string): Promise<PostgresServer> {
    return new PostgresServer(folder, ...(await start(folder)))
  }

  /** Where Postgres itself answers; another port after each start. */
  get url(): string {
    return this.#running.url
  }

  get port(): number {
    return Number(new URL(this.url).port)
  }

  /** Where its files are. */
  get directory(): string {
    return this.#running.directory
  }

  /** Kills the postmaster, whose backends then end by themselves. */
  async kill(): Promise<void> {
    signal(this.#postmaster, 'SIGKILL')
    await until(() => !isAlive(this.#postmaster))
    disown(this.#postmaster)
  }

  /** Starts it again after `kill`, on the same files and another port. */
  restart(): Promise<void> {
    this.#restarting = this.#restart()
    return this.#restarting
  }

  async #restart(): Promise<void> {
    await this.#running.stop() // closes what the dead one has left in this process
    const [running, postmaster] = await start(this.#folder)
    this.#running = running
    this.#postmaster = postmaster
  }

  /** Stops all its processes, in the middle of whatever they do. */
  async pause(): Promise<void> {
    const sql = connectTo(this.url)
    try {
      await sql`select 1`
      // First the one that could start others; our own backend still answers.
      this.#pause(this.#postmaster)
      const backends = await sql`select pid from pg_stat_activity where pid <> pg_backend_pid()`
      for (const { pid } of backends) this.#pause(pid)
    } finally {
      await sql.end({ timeout: 1 })
    }
  }

  resume(): void {
    for (const pid of this.#paused.splice(0)) {
      signal(pid, 'SIGCONT')
      if (pid !== this.#postmaster) disown(pid)
    }
  }

  /** Ends those of its backends that serve connections from the given ports. @returns how many */
  async terminate(sql: postgres.Sql, ports: number[]): Promise<number> {
    const terminated = await sql`
      select pg_terminate_backend(pid) from pg_stat_activity where client_port = any(${ports})`
    return terminated.length
  }

  /** A connection to Postgres itself, for whoever ends it. */
  connect(): postgres.Sql {
    return connectTo(this.url)
  }

  async close(): Promise<void> {
    await this.#restarting?.catch(() => {}) // else it would start after its end
    this.resume()
    await this.#running.stop()
    if (isAlive(this.#postmaster)) await this.kill()
    disown(this.#postmaster)
  }

  #pause(pid: number): void {
    own(pid)
    this.#paused.push(pid)
    signal(pid, 'SIGSTOP')
  }
}

async function start(folder: string): Promise<[EmbeddedPostgres, number]> {
  const running = await startEmbeddedPostgres(folder)
  const pidFile = await readFile(join(running.directory, 'data', 'postmaster.pid'), 'utf8')
  const postmaster = Number.parseInt(pidFile, 10)
  own(postmaster)
  return [running, postmaster]
}

function connectTo(url: string): postgres.Sql {
  return postgres(url, { max: 1, onnotice: () => {} })
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
