import { describe, expect, test } from 'vitest'
import { blockInserts } from '../support/blocked-inserts.ts'
import { runBinary, startProcess } from '../support/process.ts'
import { startInstance } from '../support/service.ts'
import { startProxy } from '../support/start-proxy.ts'
import { emptyRedisSpace, hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

describe.runIf(hasRedis)('the command `order` with its defaults', () => {
  test('gets its order, although the process is killed between the claim and the insert', async () => {
    const { url, sql, isBlocking, unblock } = await blockInserts()
    const redisSpace = await emptyRedisSpace()
    const killed = await startProcess({ DATABASE_URL: url, REDIS_URL: redisSpace.url })
    const other = await startInstance({ database: { url }, redisSpace })
    const { proxy, url: serviceUrl } = await startProxy(`http://127.0.0.1:${killed.port}`)
    const args = ['order', '--item', 'book', '--amount', '500', '--url', serviceUrl, '--json']
    const running = runBinary(args)
    await until(isBlocking)

    proxy.serverPort = other.port
    await killed.stop('SIGKILL')
    // Postgres has received the insert: it must not complete it.
    await sql`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock'`
    await until(async () => !(await isBlocking()))
    await unblock()
    expect(await sql`select id from orders`).toEqual([])

    const { code, stdout } = await running
    const { attempts, order } = JSON.parse(stdout)
    expect(attempts.at(0).error).toBeDefined()
    expect(attempts.at(1)).toMatchObject({ status: 409, code: 'request-in-progress' })
    expect(attempts.at(-1)).toMatchObject({ status: 201 })
    expect(code).toBe(0)
    expect(await sql`select id from orders`).toEqual([{ id: order.id }])
  })
})
