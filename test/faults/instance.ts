import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { until } from '../support/until.ts'
import { disown, own, signal } from './owned-processes.ts'

const SERVER = fileURLToPath(new URL('../../dist/main.js', import.meta.url))

/** Pino's numbers. */
const INFO = 30
const FATAL = 60

/** A supervisor would not start a broken service faster than this. */
const RESTART_DELAY_MS = 500

/** The service waits 15 s for its Postgres, and may have to be started more than once. */
const START_BOUND_MS = 60_000

/** What is kept of its output for whoever looks into an unexpected end. */
const LAST_CHARACTERS = 2_000

/** What an instance did that none should. */
export interface Misconduct {
  instance: number
  /** on the clock of `performance.now` */
  at: number
  what: string
}

/** One instance of the compiled service on a port of its own, under a supervisor that restarts it. */
export class Instance {
  readonly index: number
  readonly port: number
  readonly misconduct: Misconduct[] = []
  /** how often which warning or error was logged */
  readonly logged = new Map<string, number>()
  readonly #folder: string
  readonly #env: Record<string, string>
  #child: ChildProcess | undefined
  #ended: Promise<unknown> = Promise.resolve()
  #listens = false
  #mayEnd = true
  /** the processes that it runs beside its primary, the newest last */
  #workers: number[] = []

  /** @param folder where it runs: one without `.env` */
  constructor(index: number, port: number, folder: string, env: Record<string, string>) {
    this.index = index
    this.port = port
    this.#folder = folder
    this.#env = env
  }

  start(): void {
    this.#mayEnd = false
    this.#listens = false
    this.#workers = []
    const child = spawn(process.execPath, [SERVER, 'serve'], {
      cwd: this.#folder,
      env: { PATH: process.env.PATH, ...this.#env, PORT: `${this.port}` },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child = child
    const { pid } = child
    if (pid !== undefined) own(pid)
    let last = ''
    const keep = (text: string) => {
      last = (last + text).slice(-LAST_CHARACTERS)
    }
    child.stderr.on('data', keep)
    createInterface(child.stdout).on('line', (line) => {
      if (!line.endsWith('"msg":"request"}')) keep(`\n${line}`)
      this.#read(line)
    })
    this.#ended = new Promise<void>((resolve) => {
      child.on('close', async (code, signal) => {
        if (pid !== undefined) disown(pid)
        if (!this.#mayEnd) {
          const when = this.#listens ? '' : ' while it started'
          this.#report(`ended by itself${when} with ${signal ?? code}; its last words: ${last}`)
        }
        this.#listens = false
        resolve()
        if (this.#mayEnd) return
        await sleep(RESTART_DELAY_MS)
        if (!this.#mayEnd) this.start()
      })
    })
  }

  /** @throws if it does not listen in time, or is told to end before */
  async listens(): Promise<void> {
    await until(() => {
      if (this.#mayEnd) throw new Error('the instance was told to end before it listened')
      return this.#listens
    }, START_BOUND_MS)
  }

  /** Kills one of its processes, which its primary is to replace. @returns whether it has several */
  killWorker(): boolean {
    const worker = this.#workers.shift()
    if (worker !== undefined) signal(worker, 'SIGKILL')
    return worker !== undefined
  }

  async kill(): Promise<void> {
    this.#mayEnd = true
    this.#child?.kill('SIGKILL')
    await this.#ended
  }

  /** Asks it to end, and kills it if it has not after `patienceMs`. */
  async terminate(patienceMs: number): Promise<void> {
    this.#mayEnd = true
    const child = this.#child
    const started = this.#listens
    child?.kill('SIGTERM')
    const isLate = await Promise.race([
      this.#ended.then(() => false),
      sleep(patienceMs, true, { ref: false }),
    ])
    if (isLate) {
      this.#report(`did not end within ${patienceMs} ms of SIGTERM`)
      await this.kill()
    } else if (started && child?.exitCode !== 0) {
      this.#report(`ended after SIGTERM with ${child?.signalCode ?? child?.exitCode}, not 0`)
    }
  }

  #read(line: string): void {
    if (line.startsWith(`{"level":${INFO},`)) {
      if (!this.#listens && line.includes('listens on')) this.#listens = true
      if (line.includes('"ready at ')) this.#workers.push(parse(line).pid)
      return
    }
    const { level, msg, err } = parse(line)
    const text = err ? `${msg}: ${err.code ?? err.type} ${err.message}` : `${msg}`
    this.logged.set(text, (this.logged.get(text) ?? 0) + 1)
    if (level >= FATAL) this.#report(`fatal: ${msg}: ${err?.stack ?? ''}`)
  }

  #report(what: string): void {
    this.misconduct.push({ instance: this.index, at: performance.now(), what })
  }
}

interface LogLine {
  level: number
  pid: number
  msg: string
  err?: { type: string; message: string; code?: string; stack: string }
}

/** A line that is not JSON tells more than that it should have been. */
function parse(line: string): LogLine {
  try {
    return JSON.parse(line)
  } catch {
    return { level: 0, pid: 0, msg: line }
  }
}
