import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { Redis } from 'ioredis'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { until } from './until.ts'

/** A Redis that belongs to whoever started it. */
export interface PrivateRedis {
  url: string
  /** stops it as SIGSTOP does: it holds its connections, and answers nothing */
  freeze(): void
  thaw(): void
  stop(): Promise<void>
}

/** `redis-server` or `valkey-server`, whichever is on the PATH. */
export const redisServer = ['redis-server', 'valkey-server'].find((name) => runs(name, '--version'))

/** Starts a Redis of one's own, on the given or on a free port, that keeps nothing on disk. */
export async function startPrivateRedis(givenPort?: number): Promise<PrivateRedis> {
  if (redisServer === undefined) throw new Error('there is no redis-server on the PATH')
  const port = givenPort ?? (await freePort())
  const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  return whenReady(port, spawn(redisServer, args, { stdio: 'ignore' }))
}

/** Starts a Redis in a container; undefined without Docker. */
export async function startRedisContainer(): Promise<PrivateRedis | undefined> {
  if (!runs('docker', 'info')) return undefined
  const port = await freePort()
  const args = ['run', '--rm', '--publish', `127.0.0.1:${port}:6379`, 'redis:7-alpine']
  return whenReady(port, spawn('docker', args, { stdio: 'ignore' }))
}

function runs(command: string, ...args: string[]): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

async function whenReady(port: number, child: ChildProcess): Promise<PrivateRedis> {
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
      child.kill('SIGKILL') // it keeps nothing, and a frozen one hears nothing else
      await once(child, 'exit')
    },
  }
}
