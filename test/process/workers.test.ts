import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, copyFile, open, rename, rm, writeFile } from 'node:fs/promises'
import { Agent, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { blockInserts } from '../support/blocked-inserts.ts'
import { newKey, send, sendAll } from '../support/client.ts'
import {
  createTemporaryFolder,
  type ServiceProcess,
  spawnService,
  startProcess,
} from '../support/process.ts'
import { startProxy } from '../support/start-proxy.ts'
import { emptyDatabase, emptyRedisSpace, hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

const PROCESSES = 2

/** What an update of Node may do to the program of the workers, and what is logged then. */
const BROKEN_NODES = {
  'is missing': { breakNode: async () => {}, reason: /could not be spawned \(spawn \S+ ENOENT\)/ },
  'is being written': {
    breakNode: async (path: string) => {
      const file = await open(path, 'w', 0o755)
      onTestFinished(() => file.close())
    },
    reason: /could not be spawned \(spawn ETXTBSY\)/,
  },
  'exits at once': {
    breakNode: (path: string) => writeFile(path, '#!/bin/sh\nexit 3', { mode: 0o755 }),
    reason: /worker \d+ exited \(3\)/,
  },
}

/** Copies Node, so that a test can break it for the processes that are spawned next. */
async function copyNode() {
  const folder = await createTemporaryFolder()
  const node = join(folder, 'node')
  await copyFile(process.execPath, node)
  await chmod(node, 0o755)
  return {
    node,
    replace: async (breakNode: (path: string) => Promise<void>) => {
      await rename(node, `${node}.intact`)
      await breakNode(node)
    },
    restore: async () => {
      await rm(node, { force: true })
      await rename(`${node}.intact`, node)
    },
  }
}

const failures = (service: ServiceProcess) =>
  service.logLines().filter(({ msg }) => `${msg}`.startsWith('no replacement was started'))

/** Prepares the stores of the test file. @returns the settings of several processes on them */
async function prepareWorkers(databaseUrl: string) {
  const { url: redisUrl, redis } = await emptyRedisSpace()
  const env = { DATABASE_URL: databaseUrl, REDIS_URL: redisUrl, WORKERS: `${PROCESSES}` }
  const countClaims = async () => (await redis.keys('idemp:*')).length
  return { env, countClaims }
}

async function startWorkers(env: Record<string, string> = {}) {
  const { url, sql } = await emptyDatabase()
  const prepared = await prepareWorkers(url)
  return { service: await startProcess({ ...prepared.env, ...env }), sql }
}

/** The workers that serve requests now. */
const findWorkers = (service: ServiceProcess) =>
  service
    .logLines()
    .filter(({ msg }) => `${msg}`.startsWith('ready at'))
    .map(({ pid }) => pid as number)
    .filter(isAlive)

const ordersInLog = (service: ServiceProcess) =>
  service.logLines().filter(({ route }) => route === '/orders')

/** Opens connections that stay open, one after the other. @returns each with the worker that has it */
async function openConnections(service: ServiceProcess, count: number) {
  const connections: { agent: Agent; worker: number }[] = []
  for (let i = 0; i < count; i++) {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    onTestFinished(() => agent.destroy())
    const earlier = ordersInLog(service).length
    await send(service.port, { agent, key: null })
    await until(() => ordersInLog(service).length > earlier)
    connections.push({ agent, worker: ordersInLog(service).at(-1)?.pid as number })
  }
  return connections
}

/** Starts workers on a database that blocks orders, with connections that are known to be theirs. */
async function startBlocked(env: Record<string, string> = {}) {
  const { url, unblock } = await blockInserts()
  const prepared = await prepareWorkers(url)
  const service = await startProcess({ ...prepared.env, WORKERS: '3', ...env })
  const connections = await openConnections(service, 9)
  return {
    service,
    unblock,
    /** Sends an order on each connection but those of `exceptWorker`, and waits until all are in flight. */
    async sendOrders({ exceptWorker }: { exceptWorker?: number } = {}) {
      const used = connections.filter(({ worker }) => worker !== exceptWorker)
      const replies = used.map(({ agent }) =>
        send(service.port, { agent }).then(
          ({ status }) => status,
          () => 'lost' as const,
        ),
      )
      await until(async () => (await prepared.countClaims()) === used.length)
      /** Expects that the orders of one worker, or of none, get no response. */
      return async (lost?: number) => {
        const expected = used.map(({ worker }) => (worker === lost ? 'lost' : 201))
        expect(await Promise.all(replies)).toEqual(expected)
      }
    },
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

describe.runIf(hasRedis)('several workers', () => {
  test.each(['postgres', 'redis'])(
    'share one port and create each order once, with records in %s',
    async (IDEMPOTENCY_STORE) => {
      const { service, sql } = await startWorkers({ IDEMPOTENCY_STORE })
      const keys = Array.from({ length: 20 }, newKey)
      // Each on a connection of its own, so that both workers get some.
      const replies = await sendAll(100, (i) => send(service.port, { key: keys[i % 20] as string }))
      for (const [i, key] of keys.entries()) {
        const repliesOfKey = replies.filter((_, index) => index % 20 === i)
        const repeat = await send(service.port, { key })
        expect(repeat.status).toBe(201)
        for (const { status, text } of repliesOfKey) {
          if (status === 201) expect(text).toBe(repeat.text)
          else expect(status).toBe(409)
        }
      }
      expect(await sql`select 1 from orders`).toHaveLength(20)
      await until(() => {
        const served = service.logLines().filter(({ route }) => route === '/orders')
        return new Set(served.map(({ pid }) => pid)).size === PROCESSES
      })
    },
  )

  test('share one rate limit', async () => {
    const { service } = await startWorkers({ RATE_LIMIT_MAX: '10' })
    const replies = await sendAll(15, () => send(service.port))
    const statuses = replies.map(({ status }) => status).sort()
    expect(statuses).toEqual([...Array(10).fill(201), ...Array(5).fill(429)])
    expect((await send(service.port)).headers).toMatchObject({
      'x-ratelimit-remaining': '0',
      'retry-after': expect.stringMatching(/^[1-9]\d?$/),
    })
  })

  test('are replaced when they die; the others continue, and all orders are replayed', async () => {
    const { service } = await startWorkers()
    const key = newKey()
    const first = await send(service.port, { key })
    const [victim, survivor] = findWorkers(service)
    process.kill(victim as number, 'SIGKILL')
    await until(() => !isAlive(victim as number))
    expect((await send(service.port, { key })).text).toBe(first.text)
    await until(() => findWorkers(service).length === PROCESSES)
    expect(findWorkers(service)).toContain(survivor)
    expect((await send(service.port)).status).toBe(201)
    expect(service.stdout()).toContain(`worker ${victim} exited (SIGKILL); starting a replacement`)
  })

  test.each(['SIGTERM', 'SIGINT'] as const)(
    'finish their requests and end together on %s',
    async (signal) => {
      const { url, unblock } = await blockInserts()
      const { env, countClaims } = await prepareWorkers(url)
      const service = await startProcess(env)
      const inFlight = sendAll(10, () => send(service.port))
      await until(async () => (await countClaims()) === 10)
      const workers = findWorkers(service)
      // Ctrl-C sends it to all processes.
      for (const pid of signal === 'SIGINT' ? workers : []) process.kill(pid, signal)
      service.child.kill(signal)
      await until(() => service.stdout().includes(`closing on ${signal}`))
      await unblock()
      expect((await inFlight).map(({ status }) => status)).toEqual(Array(10).fill(201))
      expect(await service.ended).toBe(0)
      expect(workers).toHaveLength(PROCESSES)
      expect(workers.filter(isAlive)).toEqual([])
    },
  )

  test('finish their requests on SIGTERM, also if one of them is killed at that moment', async () => {
    const { service, unblock, sendOrders } = await startBlocked()
    const expectReplies = await sendOrders()
    const [victim] = findWorkers(service) as [number]
    process.kill(victim, 'SIGKILL')
    service.child.kill('SIGTERM')
    await until(() => service.stdout().includes('closing on SIGTERM'))
    await unblock()
    await expectReplies(victim)
    expect(await service.ended).toBe(0)
  })

  test('finish their requests on SIGTERM, also if a replacement dies as it begins to listen', async () => {
    const folder = await createTemporaryFolder()
    const flag = join(folder, 'die')
    const dead = join(folder, 'dead')
    const preload = join(folder, 'die-when-listening.cjs')
    // The primary reads the last message of the worker after its death.
    await writeFile(
      preload,
      `const { existsSync, writeFileSync } = require('node:fs')
      const { send } = process
      if (send) process.send = (message, ...rest) => {
        const dies = message.act === 'queryServer' && existsSync('${flag}')
        if (dies) process.kill(process.ppid, 'SIGSTOP')
        const result = send.call(process, message, ...rest)
        if (dies) {
          writeFileSync('${dead}', '')
          process.kill(process.pid, 'SIGKILL')
        }
        return result
      }`,
    )
    const { service, unblock, sendOrders } = await startBlocked({
      NODE_OPTIONS: `--require ${preload}`,
    })
    onTestFinished(() => void service.child.kill('SIGCONT'))
    await writeFile(flag, '')
    const [victim] = findWorkers(service) as [number]
    process.kill(victim, 'SIGKILL')
    await until(() => existsSync(dead))
    const expectReplies = await sendOrders({ exceptWorker: victim })
    service.child.kill('SIGTERM')
    service.child.kill('SIGCONT')
    await until(() => service.stdout().includes('closing on SIGTERM'))
    await unblock()
    await expectReplies()
    expect(await service.ended).toBe(0)
  })

  test('leave no connection without an end when they are killed', async () => {
    const { service } = await startWorkers()
    const [victim] = findWorkers(service) as [number]
    process.kill(victim, 'SIGKILL')
    // The primary still believes that the worker accepts connections.
    const replies = Array.from({ length: 4 }, () => send(service.port))
    const statuses = (await Promise.allSettled(replies)).map((result) =>
      result.status === 'fulfilled' ? result.value.status : result.reason.code,
    )
    for (const status of statuses) expect([201, 'ECONNRESET']).toContain(status)
  })

  test('finish their requests when their primary is killed, and end', async () => {
    const { service, unblock, sendOrders } = await startBlocked({ LOG_LEVEL: 'debug' })
    const expectReplies = await sendOrders()
    const workers = findWorkers(service)
    service.child.kill('SIGKILL')
    await until(() => service.stdout().split('closing on request').length - 1 === workers.length)
    await unblock()
    await expectReplies()
    await until(() => !workers.some(isAlive))
  })

  test('finish their requests on SIGTERM although one of them hangs, which is killed', async () => {
    const { service, unblock, sendOrders } = await startBlocked()
    const expectReplies = await sendOrders()
    const workers = findWorkers(service)
    const [victim] = workers as [number]
    process.kill(victim, 'SIGSTOP')
    onTestFinished(() => void (isAlive(victim) && process.kill(victim, 'SIGKILL')))
    service.child.kill('SIGTERM')
    await until(() => service.stdout().includes('closing on SIGTERM'))
    await unblock()
    await expectReplies(victim)
    expect(await service.ended).toBe(1)
    await until(() => !workers.some(isAlive))
  })

  test('share one limit of wrong signatures', async () => {
    const { service } = await startWorkers()
    const statuses: number[] = []
    for (let i = 0; i < 17; i++) {
      const replies = await sendAll(6, () => send(service.port, { signature: '0'.repeat(64) }))
      statuses.push(...replies.map(({ status }) => status))
    }
    expect(statuses.sort()).toEqual([...Array(100).fill(401), 429, 429])
    expect(new Set(ordersInLog(service).map(({ pid }) => pid)).size).toBe(PROCESSES)
    expect((await send(service.port)).status).toBe(201)
  })

  describe.each(Object.entries(BROKEN_NODES))('whose program %s', (_, { breakNode, reason }) => {
    test('are started again and again; the others continue', async () => {
      const { node, replace, restore } = await copyNode()
      const { url } = await emptyDatabase()
      const service = await startProcess((await prepareWorkers(url)).env, { node })
      await replace(breakNode)
      const [victim, survivor] = findWorkers(service) as [number, number]
      process.kill(victim, 'SIGKILL')
      const countFailures = () => failures(service).length
      await until(() => countFailures() >= 2)
      const replies = await sendAll(20, () => send(service.port))
      expect(replies.map(({ status }) => status)).toEqual(Array(20).fill(201))
      expect(findWorkers(service)).toEqual([survivor])
      await restore()
      await until(() => findWorkers(service).length === PROCESSES)
      for (const { msg, err } of failures(service)) {
        expect(msg).toMatch(reason)
        expect(err).toBeUndefined()
      }
      expect(await service.stop()).toBe(0)
    })

    test('stop the start with one line', async () => {
      const { node, replace } = await copyNode()
      const { url: serverUrl } = await emptyDatabase()
      const { proxy, url } = await startProxy(serverUrl)
      const { env } = await prepareWorkers(url)
      proxy.silence() // so that the primary waits before it starts workers
      const service = await spawnService(env, { node })
      await until(() => proxy.serverSidePorts.length > 0)
      await replace(breakNode)
      proxy.resume()
      expect(await service.ended).toBe(1)
      expect(service.stderr()).toMatch(/^order-once cannot start: .*\n$/)
      expect(service.stderr()).toMatch(reason)
    })
  })

  test('that cannot start stop the start with one line', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    onTestFinished(() => void other.close())
    const { port } = other.address() as AddressInfo
    const { url } = await emptyDatabase()
    const { env } = await prepareWorkers(url)
    const service = await spawnService({ ...env, PORT: `${port}` })
    expect(await service.ended).toBe(1)
    expect(service.stderr()).toBe(
      `order-once cannot start: port ${port} on 127.0.0.1 is in use: stop the program that uses it, or set PORT to another port\n`,
    )
  })
})

test('WORKERS above 1 without Redis stops the start with one line', async () => {
  const { url } = await emptyDatabase()
  const service = await spawnService({ DATABASE_URL: url, WORKERS: '2' })
  expect(await service.ended).toBe(1)
  expect(service.stderr()).toBe(
    'order-once cannot start: WORKERS must be 1 without Redis: set REDIS_URL, or WORKERS to 1\n',
  )
})

test('WORKERS=auto without Redis is one process, and a log line says so', async () => {
  const { url } = await emptyDatabase()
  const service = await startProcess({ DATABASE_URL: url, WORKERS: 'auto' })
  expect(findWorkers(service).length).toBeLessThanOrEqual(1)
  if (availableParallelism() > 1) {
    expect(service.stdout()).toContain('WORKERS is auto, and there is no Redis')
  }
})

test('with WORKERS=auto the primary owns the embedded database, and stops it', async () => {
  const service = await startProcess({ WORKERS: 'auto' })
  const key = newKey()
  const replies = [await send(service.port, { key }), await send(service.port, { key })]
  expect(replies.map(({ status }) => status)).toEqual([201, 201])
  const directory = /embedded Postgres in (\S+) /.exec(service.stdout())?.[1]
  expect(await service.stop()).toBe(0)
  expect(existsSync(join(directory as string, 'data', 'PG_VERSION'))).toBe(true)
  expect(existsSync(join(directory as string, 'data', 'postmaster.pid'))).toBe(false)
})
