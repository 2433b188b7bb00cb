/** One instance of the compiled service on a port of its own, with a supervisor that restarts it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { until } from '../support/until.ts'
import { killChildAtExit, sendSignal } from './exit-cleanup.ts'

const BINARY = fileURLToPath(new URL('../../dist/main.js', import.meta.url))

/** Pino's levels. */
const INFO = 30
const FATAL = 60

/** A supervisor does not start a broken service more often than this. */
const RESTART_DELAY_MS = 500

/** The service waits 15 s for its Postgres, and may have to be started more than once. */
const START_TIMEOUT_MS = 60_000

/** Enough of its last output to explain an unexpected exit. */
const MAX_LAST_OUTPUT_CHARACTERS = 2_000

/** What an instance must never do, such as to exit by itself. */
export interface InstanceFailure {
  /** on the clock of `performance.now` */
  at: number
  message: string
}

export class Instance {
  readonly port: number
  readonly failures: InstanceFailure[] = []
  /** how often each warning or error was logged */
  readonly warnings = new Map<string, number>()
  readonly #folder: string
  readonly #env: Record<string, string>
  #child: ChildProcess | undefined
  #exited: Promise<unknown> = Promise.resolve()
  #shouldRun = false
  #isListening = false
  /** the ids of its worker processes, the newest last */
  #workers: number[] = []

  /** @param folder its working directory: one without `.env` */
  constructor(port: number, folder: string, env: Record<string, string>) {
    this.port = port
    this.#folder = folder
    this.#env = env
  }

  /** @param stdout a file descriptor for its log, which then is not read */
  start(stdout: number | 'pipe' = 'pipe'): void {
    this.#shouldRun = true
    this.#workers = []
    const child = spawn(process.execPath, [BINARY, 'serve'], {
      cwd: this.#folder,
      env: { PATH: process.env.PATH, ...this.#env, PORT: `${this.port}` },
      stdio: ['ignore', stdout, 'pipe'],
    })
    killChildAtExit(child)
    this.#child = child
    let lastOutput = ''
    const keepOutput = (text: string) => {
      lastOutput = (lastOutput + text).slice(-MAX_LAST_OUTPUT_CHARACTERS)
    }
    child.stderr?.on('data', keepOutput)
    if (child.stdout) {
      createInterface(child.stdout).on('line', (line) => {
        if (!line.endsWith('"msg":"request"}')) keepOutput(`\n${line}`)
        this.#readLogLine(line)
      })
    }
    this.#exited = new Promise<void>((resolve) => {
      child.on('close', async (code, signal) => {
        const phase = this.#isListening ? '' : ' during its start'
        this.#isListening = false
        resolve()
        if (!this.#shouldRun) return
        this.#recordFailure(`exited${phase} (${signal ?? code}); its last output: ${lastOutput}`)
        await sleep(RESTART_DELAY_MS)
        if (this.#shouldRun) this.start()
      })
    })
  }

  /** @throws if it does not listen in time, or when `stopped` is aborted */
  async waitUntilListening(stopped: AbortSignal): Promise<void> {
    await until(() => {
      stopped.throwIfAborted()
      return this.#isListening
    }, START_TIMEOUT_MS)
  }

  /** Kills its oldest worker, which its primary then replaces. @returns whether there was one */
  killWorker(): boolean {
    const worker = this.#workers.shift()
    return worker !== undefined && sendSignal(worker, 'SIGKILL')
  }

  /** Stops to read its log, until `resumeLog`. */
  pauseLog(): void {
    this.#child?.stdout?.pause()
  }

  resumeLog(): void {
    this.#child?.stdout?.resume()
  }

  async kill(): Promise<void> {
    this.#shouldRun = false
    this.#child?.kill('SIGKILL')
    await this.#exited
  }

  /** Sends SIGTERM, and kills the instance if it has not exited after `timeoutMs`. */
  async terminate(timeoutMs: number): Promise<void> {
    this.#shouldRun = false
    const child = this.#child
    const wasListening = this.#isListening
    child?.kill('SIGTERM')
    const timeout = sleep(timeoutMs, 'timeout', { ref: false })
    if ((await Promise.race([this.#exited, timeout])) === 'timeout') {
      this.#recordFailure(`did not exit within ${timeoutMs} ms of SIGTERM`)
      await this.kill()
    } else if (wasListening && child?.exitCode !== 0) {
      this.#recordFailure(`exited after SIGTERM (${child?.signalCode ?? child?.exitCode})`)
    }
  }

  #readLogLine(line: string): void {
    if (line.startsWith(`{"level":${INFO},`)) {
      if (line.includes('listens on')) this.#isListening = true
      const { pid } = line.includes('"ready at ') ? parseLogLine(line) : {}
      if (pid) this.#workers.push(pid)
      return
    }
    const { level, msg, err } = parseLogLine(line)
    const text = err ? `${msg}: ${err.code ?? err.type} ${err.message}` : msg
    this.warnings.set(text, (this.warnings.get(text) ?? 0) + 1)
    if (level >= FATAL) this.#recordFailure(`fatal: ${msg}: ${err?.stack ?? ''}`)
  }

  #recordFailure(message: string): void {
    this.failures.push({ at: performance.now(), message })
  }
}

interface LogLine {
  level: number
  pid?: number
  msg: string
  err?: { type: string; message: string; code?: string; stack: string }
}

/** A line that is not JSON counts as a message. */
function parseLogLine(line: string): LogLine {
  try {
    return JSON.parse(line)
  } catch {
    return { level: 0, msg: line }
  }
}
