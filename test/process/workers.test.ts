import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { blockInserts } from '../support/blocked-inserts.ts'
import { newKey, send, sendAll } from '../support/client.ts'
import { type ServiceProcess, spawnService, startProcess } from '../support/process.ts'
import { emptyDatabase, emptyRedisSpace, hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

const PROCESSES = 2

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

  test('end when their primary is killed', async () => {
    const { service } = await startWorkers()
    const workers = findWorkers(service)
    expect(workers).toHaveLength(PROCESSES)
    await service.stop('SIGKILL')
    await until(() => workers.every((pid) => !isAlive(pid)))
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
