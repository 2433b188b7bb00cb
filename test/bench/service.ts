import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { disown, own } from '../faults/owned-processes.ts'
import { until } from '../support/until.ts'
import { cpuOfTree, memoryOfTree } from './process-tree.ts'

const PROGRAMS = {
  service: fileURLToPath(new URL('../../dist/server.js', import.meta.url)),
  bare: fileURLToPath(new URL('bare-fastify.js', import.meta.url)),
}

/** The first process of several answers before the others listen. */
const ALL_LISTEN_MS = 1_000

const START_BOUND_MS = 30_000
const ANSWER_BOUND_MS = 1_000
const STOP_BOUND_MS = 15_000

/** What is kept of its output: its first warnings. */
const KEPT_CHARACTERS = 1_000

/** A program under load, with all its processes. */
export interface Service {
  port: number
  /** µs so far; null if not measured */
  cpu(): number | null
  /** resident memory of each process in bytes */
  memory(): number[]
  /** what it has printed, which is nothing if nothing is wrong */
  printed(): string
  stop(): Promise<void>
}

/**
 * Starts the compiled service, or the bare Fastify, and waits until it answers.
 *
 * @param options `folder`: where it runs: one without `.env`
 */
export async function startService(
  program: keyof typeof PROGRAMS,
  options: { folder: string; processes: number; env: Record<string, string> },
): Promise<Service> {
  const { folder, processes, env } = options
  const port = await freePort()
  const child = spawn(process.execPath, [PROGRAMS[program]], {
    cwd: folder,
    env: {
      PATH: process.env.PATH,
      ...env,
      HOST: '127.0.0.1',
      PORT: `${port}`,
      WORKERS: `${processes}`,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const pid = child.pid as number
  own(pid)
  const ended = once(child, 'close').then(() => disown(pid))
  let printed = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      printed = (printed + chunk).slice(0, KEPT_CHARACTERS)
    })
  }
  const stop = async () => {
    const late = setTimeout(() => child.kill('SIGKILL'), STOP_BOUND_MS)
    child.kill('SIGTERM')
    await ended
    clearTimeout(late)
  }
  try {
    await until(() => {
      const end = child.exitCode ?? child.signalCode
      if (end !== null) throw new Error(`it ended with ${end}`)
      return answers(port)
    }, START_BOUND_MS)
    if (processes > 1) await sleep(ALL_LISTEN_MS)
  } catch (cause) {
    await stop()
    throw new Error(`${program} on port ${port} did not answer; it said: ${printed}`, { cause })
  }
  return {
    port,
    cpu: () => cpuOfTree(pid),
    memory: () => memoryOfTree(pid),
    printed: () => printed,
    stop,
  }
}

async function answers(port: number): Promise<boolean> {
  try {
    await fetch(`http://127.0.0.1:${port}/`, { signal: AbortSignal.timeout(ANSWER_BOUND_MS) })
    return true
  } catch {
    return false
  }
}
