/** A `redis-server` with a configuration file, as a server, a sentinel or a node of a cluster. */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawnChild } from './child-processes.ts'
import { redisServer } from './private-redis.ts'

export interface RedisProcess {
  /** what SIGSTOP does: it keeps its connections and does not respond */
  freeze(): void
  thaw(): void
  /** as a power cut would end it */
  kill(): Promise<void>
}

/**
 * Starts a process.
 *
 * @param config the lines of its configuration; the file and all others of the process are in a folder of
 * their own
 * @param args for the command line, such as `--sentinel`
 */
export async function startRedisProcess(
  config: string[],
  args: string[] = [],
): Promise<RedisProcess> {
  if (redisServer === undefined) throw new Error('there is no redis-server on the PATH')
  const folder = await mkdtemp(join(tmpdir(), 'redis-'))
  const file = join(folder, 'redis.conf')
  await writeFile(file, [...config, `dir ${folder}`, ''].join('\n'))
  const child: ChildProcess = spawnChild(redisServer, [file, ...args], { stdio: 'ignore' })
  return {
    freeze: () => void child.kill('SIGSTOP'),
    thaw: () => void child.kill('SIGCONT'),
    kill: async () => {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL') // a frozen one receives no other signal
        await once(child, 'exit')
      }
      await rm(folder, { recursive: true, force: true })
    },
  }
}
