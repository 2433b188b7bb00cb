/** The kinds of faults. */
import { closeSync, openSync } from 'node:fs'
import type { Sql } from 'postgres'
import type { TcpProxy } from '../support/tcp-proxy.ts'
import { pickInteger, pickOne, type Random, type Range } from './random.ts'
import { CLUSTERED_INSTANCE, type System } from './system.ts'

/** Faults of one target follow one another; those of several targets overlap. */
export type Target = 'postgres' | 'redis' | 'instance'

export interface FaultContext {
  system: System
  random: Random
  /** the index of the instance that a fault of an instance hits */
  instance: number
  /** Waits as long as the fault lasts. @throws when the run is stopped */
  wait(): Promise<void>
  /** Counts what the fault did: connections reset, replies dropped, … */
  countEffects(count?: number): void
}

export interface Fault {
  kind: string
  target: Target
  /** 0: it ends by itself */
  durationMs: Range
  /** the only instance that it can hit */
  instance?: number
  /** Starts the fault, waits and ends it. If the run is stopped, closing the system ends it. */
  run(context: FaultContext): Promise<void>
}

/** The service waits 3 s for a query: some pauses are shorter, some longer. */
const PAUSE_MS: Range = [1_000, 7_000]
/** Long enough to disturb hundreds of statements. */
const DISTURBANCE_MS: Range = [2_000, 4_000]
/** From the end of a process to its next start. */
const OUTAGE_MS: Range = [300, 2_500]
const NONE_MS: Range = [0, 0]

/** In each direction. The service gives Redis 200 ms for a command: some are within it, some not. */
const LATENCY_MS: Range = [20, 200]

/** Low enough that most of the statements in between succeed. */
const CUT_SHARE = 0.05
const DROPPED_REPLY_SHARE = 0.1

/** Many a second, but fewer than the pool can open. */
const TERMINATE_INTERVAL_MS = 50

/** The service exits within 10 s of SIGTERM; a busy machine takes some more. */
const TERMINATION_TIMEOUT_MS = 12_000

export const FAULTS: readonly Fault[] = [
  {
    kind: 'Postgres killed',
    target: 'postgres',
    durationMs: OUTAGE_MS,
    async run({ system: { postgres, postgresProxy }, wait, countEffects }) {
      await postgres.kill()
      countEffects()
      await wait()
      await postgres.restart()
      postgresProxy.serverPort = postgres.port
    },
  },
  {
    kind: 'Postgres backends terminated',
    target: 'postgres',
    durationMs: DISTURBANCE_MS,
    async run({ system: { postgres, postgresProxy }, random, wait, countEffects }) {
      const sql = postgres.connect()
      const timer = setInterval(() => {
        const ports = postgresProxy.serverSidePorts
        if (ports.length === 0) return
        const port = pickOne(random, ports)
        const terminated = sql`
          select pg_terminate_backend(pid) from pg_stat_activity where client_port = ${port}`
        terminated.then(({ length }) => countEffects(length)).catch(() => {})
      }, TERMINATE_INTERVAL_MS)
      await wait()
      clearInterval(timer)
      await sql.end({ timeout: 1 })
    },
  },
  {
    kind: 'Postgres paused',
    target: 'postgres',
    durationMs: PAUSE_MS,
    async run({ system: { postgres }, wait, countEffects }) {
      await postgres.pause()
      countEffects()
      await wait()
      postgres.resume()
    },
  },
  {
    kind: 'network to Postgres silent',
    target: 'postgres',
    durationMs: PAUSE_MS,
    async run({ system: { postgresProxy }, wait, countEffects }) {
      postgresProxy.silence()
      countEffects()
      await wait()
      postgresProxy.resume()
    },
  },
  {
    kind: 'network to Postgres slow',
    target: 'postgres',
    durationMs: DISTURBANCE_MS,
    run: (context) => slowDown(context.system.postgresProxy, context),
  },
  {
    kind: 'connections to Postgres reset',
    target: 'postgres',
    durationMs: NONE_MS,
    run: async (context) => resetConnections(context.system.postgresProxy, context),
  },
  {
    kind: 'statements cut off',
    target: 'postgres',
    durationMs: DISTURBANCE_MS,
    async run({ system: { postgresProxy }, random, wait, countEffects }) {
      postgresProxy.cutRequestAfter = ({ length }) => {
        if (random() >= CUT_SHARE) return undefined
        countEffects()
        return pickInteger(random, [0, length - 1])
      }
      await wait()
      postgresProxy.cutRequestAfter = () => undefined
    },
  },
  {
    kind: 'replies to inserts lost',
    target: 'postgres',
    durationMs: DISTURBANCE_MS,
    async run({ system: { postgresProxy }, random, wait, countEffects }) {
      postgresProxy.dropReply = (bytes) => {
        if (!isInsertCommitted(bytes) || random() >= DROPPED_REPLY_SHARE) return false
        countEffects()
        return true
      }
      await wait()
      postgresProxy.dropReply = () => false
    },
  },
  {
    kind: 'Postgres read-only',
    target: 'postgres',
    durationMs: DISTURBANCE_MS,
    run: (context) =>
      changeDatabase(context, async (sql) => {
        await setForNewSessions(sql, 'default_transaction_read_only = on')
        await terminateSessions(sql)
        return async () => {
          await setForNewSessions(sql, 'default_transaction_read_only = off')
          await terminateSessions(sql)
        }
      }),
  },
  {
    kind: 'other settings of the database',
    target: 'postgres',
    durationMs: DISTURBANCE_MS,
    run: (context) =>
      changeDatabase(context, async (sql) => {
        const settings = [
          "datestyle = 'German'",
          "timezone = 'Asia/Kathmandu'",
          'search_path = pg_catalog',
        ]
        for (const setting of settings) await setForNewSessions(sql, setting)
        await setForNewSessions(sql, "default_transaction_isolation = 'repeatable read'")
        await terminateSessions(sql)
        return () => sql`alter database ${sql(sql.options.database)} reset all`
      }),
  },
  {
    kind: 'disk of Postgres full',
    target: 'postgres',
    durationMs: DISTURBANCE_MS,
    run: (context) =>
      changeDatabase(context, async (sql) => {
        await sql.unsafe(`
          create or replace function no_room() returns trigger language plpgsql as
            $$ begin raise exception 'could not extend file' using errcode = 'disk_full'; end $$;
          create trigger no_room before insert on orders execute function no_room()`)
        return () => sql`drop trigger no_room on orders`
      }),
  },
  {
    kind: 'table of orders locked',
    target: 'postgres',
    durationMs: PAUSE_MS,
    run: (context) =>
      changeDatabase(context, async (sql) => {
        await sql`begin`
        await sql`lock table orders in access exclusive mode`
        return () => sql`rollback`
      }),
  },
  {
    kind: 'column of orders altered',
    target: 'postgres',
    durationMs: NONE_MS,
    run: (context) =>
      changeDatabase(context, async (sql) => {
        const length = pickInteger(context.random, [300, 1_000])
        await sql.unsafe(`alter table orders alter column item type varchar(${length})`)
        return async () => {}
      }),
  },
  {
    kind: 'Redis killed',
    target: 'redis',
    durationMs: OUTAGE_MS,
    async run({ system: { redis }, wait, countEffects }) {
      await redis.kill()
      countEffects()
      await wait()
      await redis.restart()
    },
  },
  {
    kind: 'Redis paused',
    target: 'redis',
    durationMs: PAUSE_MS,
    async run({ system: { redis }, wait, countEffects }) {
      redis.pause()
      countEffects()
      await wait()
      redis.resume()
    },
  },
  {
    kind: 'Redis flushed',
    target: 'redis',
    durationMs: NONE_MS,
    async run({ system: { redis }, countEffects }) {
      await redis.run((admin) => admin.flushall())
      countEffects()
    },
  },
  {
    kind: 'network to Redis slow',
    target: 'redis',
    durationMs: DISTURBANCE_MS,
    run: (context) => slowDown(context.system.redisProxy, context),
  },
  {
    kind: 'connections to Redis silent',
    target: 'redis',
    durationMs: DISTURBANCE_MS,
    async run({ system: { redisProxy }, wait, countEffects }) {
      countEffects(redisProxy.serverSidePorts.length)
      redisProxy.silencePresent()
      await wait()
      redisProxy.resume()
    },
  },
  {
    kind: 'Redis demoted to a replica',
    target: 'redis',
    durationMs: DISTURBANCE_MS,
    async run({ system: { redis }, wait, countEffects }) {
      await redis.run((admin) => admin.replicaof('127.0.0.1', 1))
      countEffects()
      await wait()
      await redis.run((admin) => admin.replicaof('NO', 'ONE'))
    },
  },
  {
    kind: 'Redis forbids scripts',
    target: 'redis',
    durationMs: DISTURBANCE_MS,
    async run({ system: { redis }, wait, countEffects }) {
      await redis.run((admin) => admin.call('ACL', 'SETUSER', 'default', '-evalsha', '-eval'))
      countEffects()
      await wait()
      await redis.run((admin) => admin.call('ACL', 'SETUSER', 'default', '+@all'))
    },
  },
  {
    kind: 'connections to Redis reset',
    target: 'redis',
    durationMs: NONE_MS,
    run: async (context) => resetConnections(context.system.redisProxy, context),
  },
  {
    kind: 'instance killed',
    target: 'instance',
    durationMs: OUTAGE_MS,
    async run({ system, instance, wait, countEffects }) {
      await system.instances[instance]?.kill()
      countEffects()
      await wait()
      system.instances[instance]?.start()
    },
  },
  {
    kind: 'worker killed',
    target: 'instance',
    durationMs: NONE_MS,
    instance: CLUSTERED_INSTANCE,
    async run({ system, instance, countEffects }) {
      if (system.instances[instance]?.killWorker()) countEffects()
    },
  },
  {
    kind: 'worker killed during SIGTERM',
    target: 'instance',
    durationMs: OUTAGE_MS,
    instance: CLUSTERED_INSTANCE,
    async run({ system, instance, wait, countEffects }) {
      const terminated = system.instances[instance]?.terminate(TERMINATION_TIMEOUT_MS)
      if (system.instances[instance]?.killWorker()) countEffects()
      await terminated
      await wait()
      system.instances[instance]?.start()
    },
  },
  {
    kind: 'log of an instance not read',
    target: 'instance',
    durationMs: DISTURBANCE_MS,
    async run({ system, instance, wait, countEffects }) {
      system.instances[instance]?.pauseLog()
      countEffects()
      await wait()
      system.instances[instance]?.resumeLog()
    },
  },
  {
    kind: 'disk of the log full',
    target: 'instance',
    durationMs: DISTURBANCE_MS,
    async run({ system, instance, wait, countEffects }) {
      const full = openSync('/dev/full', 'w')
      try {
        await system.instances[instance]?.terminate(TERMINATION_TIMEOUT_MS)
        system.instances[instance]?.start(full)
        countEffects()
        await wait()
        await system.instances[instance]?.terminate(TERMINATION_TIMEOUT_MS)
      } finally {
        closeSync(full)
      }
      system.instances[instance]?.start()
    },
  },
  {
    kind: 'instance terminated (SIGTERM)',
    target: 'instance',
    durationMs: OUTAGE_MS,
    async run({ system, instance, wait, countEffects }) {
      await system.instances[instance]?.terminate(TERMINATION_TIMEOUT_MS)
      countEffects()
      await wait()
      system.instances[instance]?.start()
    },
  },
]

/** Changes the database, waits, and undoes the change. @param change returns what undoes it */
async function changeDatabase(
  { system: { postgres }, wait, countEffects }: FaultContext,
  change: (sql: Sql) => Promise<() => Promise<unknown>>,
): Promise<void> {
  const sql = postgres.connect()
  try {
    const undo = await change(sql)
    countEffects()
    await wait()
    await undo()
  } finally {
    await sql.end({ timeout: 1 })
  }
}

/** This session itself keeps its settings, so that it can undo the change. */
const setForNewSessions = (sql: Sql, setting: string) =>
  sql.unsafe(`alter database ${sql.options.database} set ${setting}`)

const terminateSessions = (sql: Sql) => sql`
  select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'order-once'`

async function slowDown(proxy: TcpProxy, { random, wait, countEffects }: FaultContext) {
  proxy.latencyMs = pickInteger(random, LATENCY_MS)
  countEffects()
  await wait()
  proxy.latencyMs = 0
}

function resetConnections(proxy: TcpProxy, { countEffects }: FaultContext) {
  countEffects(proxy.serverSidePorts.length)
  proxy.resetAll()
}

/**
 * Whether Postgres reports inserted rows and the end of the transaction: `INSERT 0 <count>` in
 * CommandComplete, and at the end ReadyForQuery (`Z`, length 5) with the status idle (`I`).
 */
function isInsertCommitted(bytes: Buffer): boolean {
  return (
    bytes.subarray(-6).toString('latin1') === 'Z\0\0\0\x05I' &&
    /INSERT 0 [1-9]/.test(bytes.toString('latin1'))
  )
}
