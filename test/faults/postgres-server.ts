/** A private Postgres that can be killed, started again and paused. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import postgres from 'postgres'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/stores/embedded/postgres.ts'
import { until } from '../support/until.ts'
import { cancelKillAtExit, killAtExit, removeAtExit, sendSignal } from './exit-cleanup.ts'

export class PostgresServer {
  readonly #folder: string
  #embedded: EmbeddedPostgres
  #postmaster: number
  #paused: number[] = []
  #restart: Promise<void> | undefined
  #isKilled = false

  private constructor(folder: string, embedded: EmbeddedPostgres, postmaster: number) {
    this.#folder = folder
    this.#embedded = embedded
    this.#postmaster = postmaster
  }

  /** @param folder for its files; they are removed at exit. @throws if Postgres does not start */
  static async start(folder: string): Promise<PostgresServer> {
    removeAtExit(join(folder, 'postgres'))
    try {
      return new PostgresServer(folder, ...(await start(folder)))
    } catch (error) {
      // A signal to the process group ends pg_ctl, too, which then leaves Postgres running.
      const embedded = await startEmbeddedPostgres(folder)
      await embedded.stop()
      throw error
    }
  }

  /** The port is another one after each start. */
  get url(): string {
    return this.#embedded.url
  }

  get port(): number {
    return Number(new URL(this.url).port)
  }

  /** Opens a connection, which the caller ends. */
  connect(): postgres.Sql {
    return postgres(this.url, { max: 1, onnotice: () => {} })
  }

  /** Kills the postmaster; its backends then end by themselves. */
  async kill(): Promise<void> {
    this.#isKilled = true
    sendSignal(this.#postmaster, 'SIGKILL')
    await until(() => !sendSignal(this.#postmaster, 0))
    cancelKillAtExit(this.#postmaster)
  }

  /** Starts it again after `kill`, on the same files and another port. */
  restart(): Promise<void> {
    const restart = async () => {
      await this.#embedded.stop() // closes the connection that held the lock of the killed Postgres
      const [embedded, postmaster] = await start(this.#folder)
      this.#embedded = embedded
      this.#postmaster = postmaster
      this.#isKilled = false
    }
    this.#restart = restart()
    return this.#restart
  }

  /** Stops all its processes where they are (SIGSTOP), until `resume`. */
  async pause(): Promise<void> {
    const sql = this.connect()
    try {
      await sql`select 1`
      // First the postmaster, which could start further backends.
      this.#pauseProcess(this.#postmaster)
      const backends = await sql`select pid from pg_stat_activity where pid <> pg_backend_pid()`
      for (const { pid } of backends) this.#pauseProcess(pid)
    } finally {
      await sql.end({ timeout: 1 })
    }
  }

  resume(): void {
    for (const pid of this.#paused.splice(0)) {
      sendSignal(pid, 'SIGCONT')
      if (pid !== this.#postmaster) cancelKillAtExit(pid)
    }
  }

  /** Stops it in order, and resumes it first if it is paused. */
  async close(): Promise<void> {
    await this.#restart?.catch(() => {}) // else it would be started after its end
    // A killed Postgres leaves its shared memory behind, which the next start removes.
    if (this.#isKilled) await this.restart()
    this.resume()
    await this.#embedded.stop()
    if (sendSignal(this.#postmaster, 0)) await this.kill()
    cancelKillAtExit(this.#postmaster)
  }

  #pauseProcess(pid: number): void {
    killAtExit(pid) // a paused backend does not end with its postmaster
    this.#paused.push(pid)
    sendSignal(pid, 'SIGSTOP')
  }
}

async function start(folder: string): Promise<[EmbeddedPostgres, number]> {
  const embedded = await startEmbeddedPostgres(folder)
  const pidFile = await readFile(join(embedded.directory, 'data', 'postmaster.pid'), 'utf8')
  const postmaster = Number.parseInt(pidFile, 10)
  killAtExit(postmaster)
  return [embedded, postmaster]
}
