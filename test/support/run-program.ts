/** Runs a program to its end. */
import type { SpawnOptions } from 'node:child_process'
import { once } from 'node:events'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { spawnChild } from './child-processes.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/**
 * Runs a program, by default in the root of the repository.
 *
 * @param env only these variables, and `PATH`
 * @returns the exit code, and what it printed
 */
export async function runProgram(
  [program = '', ...args]: string[],
  {
    env,
    stdin = '',
    cwd = ROOT,
  }: { env?: NodeJS.ProcessEnv; stdin?: string; cwd?: SpawnOptions['cwd'] } = {},
) {
  const child = spawnChild(program, args, {
    cwd,
    env: { PATH: process.env.PATH, ...env },
    stdio: 'pipe',
  })
  child.stdin?.on('error', () => {}) // the program may exit before it has read stdin
  child.stdin?.end(stdin)
  const [stdout, stderr] = await Promise.all([
    text(child.stdout as Readable),
    text(child.stderr as Readable),
    once(child, 'close'),
  ])
  return { code: child.exitCode, stdout, stderr }
}
