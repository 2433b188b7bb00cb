import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { Redis } from 'ioredis'
import { freePort } from './free-port.ts'
import { until } from './until.ts'

/** A Redis that belongs to whoever started it. */
export interface PrivateRedis {
  url: string
  stop(): Promise<void>
}

/** Starts `redis-server` or `valkey-server` from the PATH, else a container; undefined without any. */
export async function startPrivateRedis(givenPort?: number): Promise<PrivateRedis | undefined> {
  const port = givenPort ?? (await freePort())
  const server = ['redis-server', 'valkey-server'].find((name) => runs(name, '--version'))
  if (server) {
    const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
    return answering(port, spawn(server, args, { stdio: 'ignore' }))
  }
  if (runs('docker', 'info')) {
    const args = ['run', '--rm', '--publish', `127.0.0.1:${port}:6379`, 'redis:7-alpine']
    return answering(port, spawn('docker', args, { stdio: 'ignore' }))
  }
  return undefined
}

function runs(command: string, ...args: string[]): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

async function answering(port: number, child: ChildProcess): Promise<PrivateRedis> {
  const url = `redis://127.0.0.1:${port}`
  const redis = new Redis(url, { maxRetriesPerRequest: null })
  redis.on('error', () => {})
  // A container's image may have to be fetched first.
  await until(() => redis.status === 'ready', 120_000)
  redis.disconnect()
  return {
    url,
    stop: async () => {
      child.kill()
      await once(child, 'exit')
    },
  }
}
