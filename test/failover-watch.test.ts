import { Redis } from 'ioredis'
import { afterEach, describe, expect, onTestFinished, test } from 'vitest'
import { send } from './support/client.ts'
import { PostgresNode, postgresPrograms, urlOfHosts } from './support/postgres-node.ts'
import { redisServer, startPrivateRedis } from './support/private-redis.ts'
import { runBinary, startProcess } from './support/process.ts'
import { scrape } from './support/scrape.ts'
import { until } from './support/until.ts'

const nodes: PostgresNode[] = []
afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.remove()))
})

const canRun = postgresPrograms !== undefined && redisServer !== undefined

/** Starts a primary with a standby, and a Redis with a client. @returns also the settings of a service on them */
async function startServers() {
  const primary = await PostgresNode.startPrimary()
  nodes.push(primary)
  const standby = await primary.addStandby()
  nodes.push(standby)
  const redis = await startPrivateRedis()
  onTestFinished(() => redis.stop())
  const client = new Redis(redis.url)
  onTestFinished(() => client.disconnect())
  const env = { DATABASE_URL: urlOfHosts(primary, standby), REDIS_URL: redis.url }
  return { primary, standby, client, env }
}

describe.runIf(canRun)('a failover that loses orders', () => {
  test.each(['1', '2'])(
    'is reported by the service (WORKERS=%s), also after a restart, until order-once reconcile --apply has restored them',
    { timeout: 180_000 },
    async (workers) => {
      const { primary, standby, client, env } = await startServers()
      const start = () => startProcess({ ...env, WORKERS: workers })
      const service = await start()
      const readLines = ({ logLines }: typeof service) =>
        logLines().filter(({ msg }) => String(msg).includes('order-once reconcile'))
      const isNeeded = async ({ port }: typeof service) =>
        (await scrape(port)).text.includes('\norder_once_reconcile_needed 1')

      await until(async () => (await client.keys('order-once:history:*')).length === 1)
      expect(await isNeeded(service)).toBe(false)
      // The standby receives nothing more: the next order is lost with the primary.
      await standby.stop()
      expect(await send(service.port, { key: 'lost' })).toMatchObject({ status: 201 })
      await until(async () => (await client.get('idemp:lost'))?.includes('completed'))
      await primary.kill()
      await standby.start()
      await standby.promote()

      await until(() => isNeeded(service))
      expect(readLines(service)).toMatchObject([
        {
          level: 50,
          msg: 'Postgres was failed over or restored (timeline 2, before 1); acknowledged orders may be missing: run order-once reconcile',
        },
      ])
      await service.stop()
      const restarted = await start()
      await until(() => isNeeded(restarted))
      expect(readLines(restarted)).toHaveLength(1)

      expect(await runBinary(['reconcile', '--apply'], env)).toMatchObject({
        code: 0,
        stdout: expect.stringContaining('Missing in Postgres: 1. Restored: 1.'),
      })
      await until(async () => !(await isNeeded(restarted)))
      expect(await standby.administer((sql) => sql`select idempotency_key from orders`)).toEqual([
        { idempotency_key: 'lost' },
      ])
    },
  )

  test('is not followed by a start on the old primary, which was not fenced', {
    timeout: 180_000,
  }, async () => {
    const { primary, standby, client, env } = await startServers()
    const service = await startProcess(env)
    const readHistory = async () => {
      const [name] = await client.keys('order-once:history:*')
      return name && (await client.get(name))
    }
    await until(readHistory)
    await standby.promote()
    await until(async () => (await readHistory())?.includes('"newest":"00000002"'))
    await service.stop()
    await standby.stop()

    const { code, stderr } = await runBinary(['serve'], env)
    expect(code).not.toBe(0)
    expect(stderr).toContain(`${primary.host} is on the old timeline 1, not 2`)
  })
})
