/** Redis servers that belong to the process that starts them. */
import { type ChildProcess, execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { Redis } from 'ioredis'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { spawnChild } from './child-processes.ts'
import { until } from './until.ts'

export interface PrivateRedis {
  url: string
  /** stops it as SIGSTOP does: it keeps its connections and does not respond */
  freeze(): void
  thaw(): void
  stop(): Promise<void>
}

/** `redis-server` or `valkey-server`, the first that is on the PATH. */
export const redisServer = ['redis-server', 'valkey-server'].find((name) =>
  succeeds(name, '--version'),
)

/** Starts a Redis that keeps nothing on disk. @param givenPort by default a free one */
export async function startPrivateRedis(givenPort?: number): Promise<PrivateRedis> {
  if (redisServer === undefined) throw new Error('there is no redis-server on the PATH')
  const port = givenPort ?? (await freePort())
  const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  const child = spawnChild(redisServer, args, { stdio: 'ignore', cwd: tmpdir() })
  return waitUntilReady(port, child, 'SIGKILL') // a frozen one receives no other signal
}

/** Starts a Redis in a container; undefined without Docker. */
export async function startRedisContainer(): Promise<PrivateRedis | undefined> {
  if (!succeeds('docker', 'info')) return undefined
  const port = await freePort()
  const args = ['run', '--rm', '--publish', `127.0.0.1:${port}:6379`, 'redis:7-alpine']
  const child = spawnChild('docker', args, { stdio: 'ignore' })
  return waitUntilReady(port, child, 'SIGTERM') // which Docker passes on to the container
}

function succeeds(command: string, ...args: string[]): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

async function waitUntilReady(
  port: number,
  child: ChildProcess,
  stopSignal: NodeJS.Signals,
): Promise<PrivateRedis> {
  const url = `redis://127.0.0.1:${port}`
  const redis = new Redis(url, { maxRetriesPerRequest: null })
  redis.on('error', () => {})
  // A container's image may have to be fetched first.
  await until(() => redis.status === 'ready', 120_000)
  redis.disconnect()
  return {
    url,
    freeze: () => void child.kill('SIGSTOP'),
    thaw: () => void child.kill('SIGCONT'),
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill(stopSignal)
      await once(child, 'exit')
    },
  }
}
