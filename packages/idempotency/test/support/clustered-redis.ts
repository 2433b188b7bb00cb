/** A Redis in cluster mode, for the tests of batches whose keys are in several slots. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { onTestFinished } from 'vitest'
import { freePort } from '../../../../src/stores/embedded/free-port.ts'
import { redisServer } from '../../../../test/support/private-redis.ts'
import { until } from '../../../../test/support/until.ts'

/** Starts one node that has all slots, until the test ends. @returns a client that is ready */
export async function startClusteredRedis(): Promise<Redis> {
  if (redisServer === undefined) throw new Error('there is no redis-server on the PATH')
  const directory = await mkdtemp(join(tmpdir(), 'clustered-redis-')) // for its nodes.conf
  const port = await freePort()
  // By default the bus has the port plus 10000, which may be no port at all.
  const args = ['--cluster-enabled', 'yes', '--cluster-port', `${await freePort()}`]
  args.push('--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--dir', directory)
  const server = spawn(redisServer, args, { stdio: 'ignore' })
  const redis = new Redis(port, '127.0.0.1', {
    maxRetriesPerRequest: null,
    enableReadyCheck: false,
  })
  redis.on('error', () => {}) // until the server accepts connections
  onTestFinished(async () => {
    redis.disconnect()
    server.kill('SIGKILL')
    if (server.exitCode === null && server.signalCode === null) await once(server, 'exit')
    await rm(directory, { recursive: true, force: true })
  })
  await redis.call('CLUSTER', 'ADDSLOTSRANGE', '0', '16383')
  await until(async () => `${await redis.call('CLUSTER', 'INFO')}`.includes('cluster_state:ok'))
  return redis
}
