/** The compiled service as processes, run as its users run it. */
import { type ChildProcess, spawnSync } from 'node:child_process'
import { closeSync, existsSync, openSync } from 'node:fs'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { spawnChild } from './child-processes.ts'
import { runProgram } from './run-program.ts'
import { until } from './until.ts'

/** Several processes and an embedded database, on a slow machine. */
const START_TIMEOUT_MS = 60_000

const BINARY = fileURLToPath(new URL('../../dist/main.js', import.meta.url))

/** Linux has a device that is always full. */
export const hasFullDevice = existsSync('/dev/full')

export interface ServiceProcess {
  port: number
  child: ChildProcess
  /** what it has printed so far */
  stdout(): string
  stderr(): string
  logLines(): Record<string, unknown>[]
  /** resolves when the process ends: its exit code, or the signal that killed it */
  ended: Promise<number | NodeJS.Signals>
  stop(signal?: NodeJS.Signals): Promise<number | NodeJS.Signals>
}

/** Creates a folder for one test. */
export async function createTemporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'order-once-test-'))
  await chmod(folder, 0o755) // for root, another user runs an embedded Postgres in it
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** Runs a command of the binary to its end, by default in a folder without a `.env`. */
export async function runBinary(args: string[], env: Record<string, string> = {}, folder?: string) {
  const cwd = folder ?? (await createTemporaryFolder())
  return runProgram([process.execPath, BINARY, ...args], { env, cwd })
}

/** Runs a command of the binary whose standard output is a full disk. */
export function runBinaryOnFullDisk(args: string[], env: Record<string, string> = {}) {
  const full = openSync('/dev/full', 'w')
  onTestFinished(() => closeSync(full))
  const { status: code, stderr } = spawnSync(process.execPath, [BINARY, ...args], {
    cwd: tmpdir(),
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', full, 'pipe'],
    encoding: 'utf8',
  })
  return { code, stderr }
}

/**
 * Starts a process of the service, which may fail to start; it is stopped when the test is finished.
 *
 * @param options `folder`: in which it runs; `node`: the program that runs it, and its workers; `stdout`: a file
 * descriptor, instead of a pipe that is read
 */
export async function spawnService(
  env: Record<string, string>,
  options: { folder?: string; node?: string; stdout?: number } = {},
): Promise<ServiceProcess> {
  const { folder, node = process.execPath, stdout = 'pipe' } = options
  const port = Number(env.PORT ?? (await freePort()))
  const child = spawnChild(node, [BINARY, 'serve'], {
    cwd: folder ?? (await createTemporaryFolder()), // where there is no .env
    env: {
      PATH: process.env.PATH,
      STORES: 'embedded',
      RATE_LIMIT_MAX: 'off',
      ...env,
      PORT: `${port}`,
    },
    stdio: ['ignore', stdout, 'pipe'],
  })
  const printed = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.on('data', (chunk) => {
      printed[name] += chunk
    })
  }
  const ended = new Promise<number | NodeJS.Signals>((resolve) => {
    child.on('close', (code, signal) => resolve(code ?? (signal as NodeJS.Signals)))
  })
  const stop = (signal: NodeJS.Signals = 'SIGTERM') => {
    child.kill(signal)
    return ended
  }
  onTestFinished(async () => {
    if (child.exitCode === null && child.signalCode === null) await stop('SIGTERM')
  })
  return {
    port,
    child,
    stdout: () => printed.stdout,
    stderr: () => printed.stderr,
    logLines: () =>
      printed.stdout
        .split('\n')
        .flatMap((line) => (line.startsWith('{') ? [JSON.parse(line)] : [])),
    ended,
    stop,
  }
}

/** Starts a process of the service and waits until it listens. */
export async function startProcess(
  env: Record<string, string>,
  options?: Parameters<typeof spawnService>[1],
): Promise<ServiceProcess> {
  const service = await spawnService(env, options)
  await until(() => {
    if (service.child.exitCode !== null) throw new Error(`did not start: ${service.stderr()}`)
    return service.stdout().includes('listens on')
  }, START_TIMEOUT_MS)
  return service
}
