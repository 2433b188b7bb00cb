import { Redis } from 'ioredis'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test } from 'vitest'
import { checkRedis } from '../../src/stores/check-redis.ts'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { openRedis, type RedisConnection } from '../../src/stores/redis.ts'
import { CertificateAuthority } from '../support/certificates.ts'
import { get, newKey, send } from '../support/client.ts'
import { createGate, type Gate } from '../support/gate.ts'
import { redisServer } from '../support/private-redis.ts'
import { createTemporaryFolder, startProcess } from '../support/process.ts'
import { sendWithDuplicate } from '../support/send-with-duplicate.ts'
import { startSentinels } from '../support/sentinels.ts'
import { createTestStores, startInstance } from '../support/service.ts'
import { until } from '../support/until.ts'

async function start(options?: Parameters<typeof startSentinels>[0]) {
  const system = await startSentinels(options)
  onTestFinished(() => system.stop())
  return system
}

/** Checks a URL. @returns the warnings */
async function check(url: string): Promise<string[]> {
  const warnings: string[] = []
  await checkRedis(url, pino({}, { write: (line) => void warnings.push(JSON.parse(line).msg) }))
  return warnings
}

/** The port of the server to which a connection leads. */
function readPort({ client }: RedisConnection): number | undefined {
  if (!(client instanceof Redis)) return undefined
  return (client.stream as { remotePort?: number }).remotePort
}

/** Opens a connection. @returns it, and the port of the server to which it is connected */
async function open(url: string) {
  const lines: string[] = []
  const redis = await openRedis(url, pino({}, { write: (line) => void lines.push(line) }))
  onTestFinished(() => redis.close())
  const set = () =>
    redis
      .runCall(() => redis.client.set('key', 'value'))
      .then(
        () => true,
        () => false,
      )
  return { redis, lines, set, port: () => readPort(redis) }
}

describe.runIf(redisServer)('Redis behind three sentinels', () => {
  test('is used at the address of the new master after a planned failover, and after the loss of a master', async () => {
    const system = await start()
    expect(await check(system.url)).toEqual([])
    const { set, port } = await open(system.url)
    expect(await set()).toBe(true)
    const first = await system.readMasterPort()
    expect(port()).toBe(first)

    await system.switchMaster()
    const second = await system.readMasterPort()
    await until(async () => (await set()) && port() === second)

    // The former master must follow the new one first, or there would be none to promote.
    await until(
      async () =>
        /role:slave[\s\S]*link_status:up/.test(await system.connect(first).info('replication')),
      60_000,
    )
    await system.server(second).kill()
    await until(async () => (await set()) && port() === first, 60_000)
  })

  test('is left when a master that was frozen during the failover responds again', async () => {
    const system = await start()
    const { set, port } = await open(system.url)
    const [first, former] = [
      await system.readMasterPort(),
      system.server(await system.readMasterPort()),
    ]
    former.freeze()
    await until(async () => (await set()) && port() !== first, 60_000)
    former.thaw()
    await until(
      async () => /role:slave/.test(await system.connect(first).info('replication')),
      60_000,
    )
    expect(await set()).toBe(true)
    expect(port()).toBe(await system.readMasterPort())
  })

  test('is left when it was demoted, although it still responds as a master: it may be cut off from the sentinels', async () => {
    const system = await start()
    const { set, port } = await open(system.url)
    const former = await system.readMasterPort()
    // So the sentinels cannot make it a replica, nor close its connections.
    await system
      .connect(former)
      .call('ACL', 'SETUSER', 'default', '-replicaof', '-slaveof', '-multi')
    await system.switchMaster()
    await until(async () => (await set()) && port() === (await system.readMasterPort()))
    expect(port()).not.toBe(former)
    expect(await system.connect(former).info('replication')).toContain('role:master')
  })

  test('claims, completes, limits and notifies before and after a failover', async () => {
    const system = await start()
    const { database } = await createTestStores({ redis: false })
    const stores = { database, redisSpace: { url: system.url } }
    const gates = [createGate(), createGate()] as const
    let gate: Gate = gates[0]
    const env = { RATE_LIMIT_MAX: '6', RATE_LIMIT_WINDOW_SECONDS: '3600' }
    const one = await startInstance(stores, {
      env,
      wrapOrders: (orders) => ({
        ...orders,
        insertOnce: async (order) => {
          await gate.pass()
          return orders.insertOnce(order)
        },
      }),
    })
    const other = await startInstance(stores, { env })

    /** Whether both use the master, which they may do some time after the health check has found it. */
    const useMaster = async () => {
      const masterPort = await system.readMasterPort()
      for (const { redis } of [one.app, other.app]) {
        if (!redis || readPort(redis) !== masterPort) return false
        const call = redis.runCall(() => redis.client.ping())
        if ((await call.catch(() => '')) !== 'PONG') return false
      }
      return true
    }
    await sendWithDuplicate({ gate, one, other })
    await system.switchMaster()
    await until(useMaster)
    gate = gates[1]
    const { key } = await sendWithDuplicate({ gate, one, other })
    const admin = system.connect(await system.readMasterPort())
    await until(async () => (await admin.get(`idemp:${key}`))?.includes('completed'))
    // The replica has the counts of before, unless it lagged behind.
    await until(async () => (await send(one.port)).status === 429)
    expect((await send(other.port)).status).toBe(429)
  })

  test('is used while a sentinel is down and another one does not respond', async () => {
    const system = await start()
    await system.sentinels[0]?.kill()
    system.sentinels[1]?.freeze()
    expect(await check(system.url)).toEqual([])
    const { set } = await open(system.url)
    expect(await set()).toBe(true)
    system.sentinels[1]?.thaw()
  })
})

describe.runIf(redisServer)('the check of a REDIS_URL with sentinels', () => {
  const stopsWith = (message: RegExp) =>
    expect.objectContaining({ name: 'StartError', message: expect.stringMatching(message) })

  test('accepts users and passwords, and refuses wrong ones in one line that names the server', async () => {
    const { url } = await start({ hasPasswords: true })
    expect(await check(url)).toEqual([])
    const { set } = await open(url)
    expect(await set()).toBe(true)

    const sentinel =
      /^REDIS_URL: the sentinel at 127\.0\.0\.1:\d+ cannot be used: (NOAUTH|WRONGPASS)[^\n]*$/
    await expect(check(url.replace(/\?.*/, ''))).rejects.toEqual(stopsWith(sentinel))
    await expect(check(`${url}x`)).rejects.toEqual(stopsWith(sentinel))
    await expect(check(url.replace('service:', 'service:x'))).rejects.toEqual(
      stopsWith(
        /^REDIS_URL: Redis at 127\.0\.0\.1:\d+, the master orders, cannot be used: WRONGPASS/,
      ),
    )
  })

  test('refuses a master that the sentinels do not know, and a URL of another kind', async () => {
    const { url, sentinels, readMasterPort } = await start()
    await expect(check(url.replace('/orders', '/others'))).rejects.toEqual(
      stopsWith(/^REDIS_URL: the sentinel at 127\.0\.0\.1:\d+ knows no master others$/),
    )
    await expect(check(`redis://127.0.0.1:${sentinels[0]?.port}`)).rejects.toEqual(
      stopsWith(/is in the mode sentinel: begin the URL with redis\+sentinel:\/\/$/),
    )
    await expect(
      check(`redis+sentinel://127.0.0.1:${await readMasterPort()}/orders`),
    ).rejects.toEqual(stopsWith(/is in the mode standalone: begin the URL with redis:\/\/$/))
  })

  test('warns while no sentinel responds, and the connection is opened all the same', async () => {
    const url = `redis+sentinel://127.0.0.1:${await freePort()},127.0.0.1:${await freePort()}/orders`
    expect(await check(url)).toEqual([
      expect.stringMatching(/^REDIS_URL: the sentinel at \S+ does not respond \(.*ECONNREFUSED/),
    ])
    const { set, lines } = await open(url)
    expect(await set()).toBe(false)
    expect(lines).toHaveLength(1)
  })
})

describe.runIf(redisServer)('a service process', () => {
  test('follows the master with TLS, users and passwords, and prints no warning of the driver', async () => {
    const authority = new CertificateAuthority(await createTemporaryFolder())
    const system = await start({ hasPasswords: true, authority })
    const { database } = await createTestStores({ redis: false })
    const service = await startProcess({
      DATABASE_URL: database.url,
      REDIS_URL: system.url,
      NODE_EXTRA_CA_CERTS: authority.file,
    })
    const isUp = async () => (await get(service.port, '/health/ready')).json.redis === 'up'
    expect(await isUp()).toBe(true)
    await system.sentinels[2]?.kill()
    await system.switchMaster()
    const admin = system.connect(await system.readMasterPort())
    await until(async () => {
      const key = newKey()
      expect((await send(service.port, { key })).status).toBe(201)
      await send(service.port, { key }) // by now the first one is stored, if Redis is used again
      return (await admin.get(`idemp:${key}`))?.includes('completed')
    })
    await until(isUp)
    expect(await service.stop()).toBe(0)
    expect(service.stderr()).toBe('')
  })
})
