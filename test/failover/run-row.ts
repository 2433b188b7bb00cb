/** Runs one row: starts the stores, sends load, fails over, reconciles and checks what clients saw. */
import { execFile } from 'node:child_process'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { runClients } from '../faults/clients.ts'
import { removeAtExit } from '../faults/exit-cleanup.ts'
import { collectFindings } from '../faults/findings.ts'
import { groupBy } from '../faults/group-by.ts'
import { Instance } from '../faults/instance.ts'
import { SECRET } from '../support/client.ts'
import { until } from '../support/until.ts'
import { type Figures, measureGaps } from './figures.ts'
import type { OnEnd, Row } from './rows.ts'

const BINARY = fileURLToPath(new URL('../../dist/main.js', import.meta.url))

const INSTANCES = 2

/** Enough orders before the failover, and enough after it to see that all is well. */
const LOAD_BEFORE_MS = 3_000
const LOAD_AFTER_MS = 4_000

/** Every order must have its 201 this long after the load; clients retry within a second. */
const LAST_ORDER_TIMEOUT_MS = 60_000

/** A failover that has not ended by then has failed. */
const READY_TIMEOUT_MS = 60_000

/** Runs a row. @param seed of the load @param stopped ends the run early */
export async function runRow(row: Row, seed: number, stopped: AbortSignal): Promise<Figures> {
  const closers: Parameters<OnEnd>[0][] = []
  const onEnd: OnEnd = (close) => void closers.push(close)
  try {
    const folder = await mkdtemp(join(tmpdir(), 'order-once-failover-'))
    removeAtExit(folder)
    const stores = await row.start(onEnd)
    const env = {
      HMAC_SECRET: SECRET,
      DATABASE_URL: stores.databaseUrl,
      REDIS_URL: stores.redisUrl,
      RATE_LIMIT_MAX: 'off',
    }
    const instances: Instance[] = []
    for (let count = 0; count < INSTANCES; count++) {
      const instance = new Instance(await freePort(), folder, env)
      onEnd(() => instance.kill())
      instance.start()
      instances.push(instance)
    }
    await Promise.all(instances.map((instance) => instance.waitUntilListening(stopped)))

    const ending = new AbortController()
    const late = new AbortController()
    const failOver = async () => {
      await sleep(LOAD_BEFORE_MS, undefined, { signal: stopped })
      const from = performance.now()
      const promotedAt = await stores.failOver()
      const [readyAt] = await Promise.all([
        waitUntilReady(instances),
        sleep(LOAD_AFTER_MS, undefined, { signal: stopped }),
      ])
      await stores.afterwards?.()
      return { from, promotedAt, readyAt }
    }
    const [exchanges, times] = await Promise.all([
      runClients({
        ports: instances.map(({ port }) => port),
        seed,
        ending: ending.signal,
        givingUp: AbortSignal.any([stopped, late.signal]),
      }),
      failOver().finally(() => {
        ending.abort()
        setTimeout(() => late.abort(), LAST_ORDER_TIMEOUT_MS).unref()
      }),
    ])
    const collect = () =>
      stores.administer((sql) => collectFindings(exchanges, sql, { instances, occurrences: [] }))
    const before = await collect()
    const restored = await reconcile(folder, env)
    return {
      row: row.name,
      mayLoseOrders: row.mayLoseOrders ?? false,
      orders: groupBy(exchanges, ({ key }) => key).size,
      ...measureGaps(exchanges, times),
      readyAfterPromotionMs: times.readyAt - times.promotedAt,
      errors: exchanges.filter(({ result }) => !/^(201|409)/.test(result)).length,
      lost: before.lost.length,
      restored,
      findings: await collect(),
    }
  } finally {
    for (const close of closers.reverse()) await close().catch((error) => console.error(error))
  }
}

/** @returns when `/health/ready` of all instances said `ready`, by `performance.now()` */
async function waitUntilReady(instances: Instance[]): Promise<number> {
  const isReady = async ({ port }: Instance) => {
    const response = await fetch(`http://127.0.0.1:${port}/health/ready`).catch(() => undefined)
    const state = (await response?.json()) as { status: unknown } | undefined
    return state?.status === 'ready'
  }
  await until(
    async () => (await Promise.all(instances.map(isReady))).every(Boolean),
    READY_TIMEOUT_MS,
  )
  return performance.now()
}

/** Runs `order-once reconcile --apply`. @returns how many orders it restored */
function reconcile(folder: string, env: Record<string, string>): Promise<number> {
  return new Promise((resolve, reject) => {
    const options = { cwd: folder, env: { PATH: process.env.PATH, ...env } }
    execFile(process.execPath, [BINARY, 'reconcile', '--apply'], options, (_, stdout, stderr) => {
      const [, restored] = /Restored: (\d+)\./.exec(stdout) ?? []
      if (restored === undefined) reject(new Error(`reconcile failed: ${stderr || stdout}`))
      else resolve(Number(restored))
    })
  })
}
