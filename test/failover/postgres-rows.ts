/** The rows of a primary Postgres and its standby, which a person promotes. */
import { setTimeout as sleep } from 'node:timers/promises'
import { RedisServer } from '../faults/redis-server.ts'
import { pgbouncerProgram, startPgBouncer } from '../support/pgbouncer.ts'
import { PostgresNode, urlOfHosts } from '../support/postgres-node.ts'
import type { OnEnd, Row, Stores } from './rows.ts'

interface Pair {
  name: string
  /** whether each commit waits for the standby */
  isSynchronous: boolean
  /** whether the service reaches each server through a PgBouncer of its own */
  usesPooler?: boolean
  /** the size of the disk of the primary, if it is to become full: only root can make such a disk */
  diskMb?: number
  /**
   * Makes the standby the primary.
   *
   * @returns when it accepted writes, by `performance.now()`
   */
  failOver(primary: PostgresNode, standby: PostgresNode): Promise<number>
  /** Runs once orders are created again. */
  afterwards?(primary: PostgresNode): Promise<void>
}

/** How far an asynchronous standby lags behind: some hundred orders. */
const LAG_MS = 1_500

/** Until a person, or Patroni, promotes the standby of a lost primary. */
const DETECTION_MS = 500

/** An empty database, its log, and some thousand orders. */
const SMALL_DISK_MB = 200

/** Until the pages and the log that have room are used up, and orders are refused. */
const FULL_DISK_MS = 2_000

/** Long enough for the thawed primary to serve clients, if there are any. */
const THAWED_MS = 2_000

async function kill(primary: PostgresNode, standby: PostgresNode): Promise<number> {
  await primary.kill()
  await sleep(DETECTION_MS)
  return standby.promote()
}

/** The standby receives nothing for a while, and then the primary is lost. */
async function killWithLag(primary: PostgresNode, standby: PostgresNode): Promise<number> {
  await standby.stop()
  await sleep(LAG_MS)
  await primary.kill()
  await standby.start()
  return standby.promote()
}

async function switchOver(primary: PostgresNode, standby: PostgresNode): Promise<number> {
  await primary.stop()
  return standby.promote()
}

async function freeze(primary: PostgresNode, standby: PostgresNode): Promise<number> {
  primary.freeze()
  await sleep(DETECTION_MS)
  return standby.promote()
}

/** Nothing fences it: it accepts writes. */
async function thaw(primary: PostgresNode): Promise<void> {
  primary.thaw()
  await sleep(THAWED_MS)
}

/** The standby is promoted while the primary goes on, as when only they are separated. */
const promoteUnfenced = (_: PostgresNode, standby: PostgresNode) => standby.promote()

async function makeReadOnly(primary: PostgresNode, standby: PostgresNode): Promise<number> {
  await primary.set('default_transaction_read_only', 'on')
  await sleep(DETECTION_MS)
  return standby.promote()
}

async function fillDisk(primary: PostgresNode, standby: PostgresNode): Promise<number> {
  primary.fillDisk()
  await sleep(FULL_DISK_MS)
  return standby.promote()
}

const PAIRS: Pair[] = [
  { name: 'kill -9, synchronous', isSynchronous: true, failOver: kill },
  { name: 'kill -9, asynchronous', isSynchronous: false, failOver: kill },
  { name: 'kill -9, asynchronous, 1.5 s behind', isSynchronous: false, failOver: killWithLag },
  { name: 'planned switchover, synchronous', isSynchronous: true, failOver: switchOver },
  { name: 'planned switchover, asynchronous', isSynchronous: false, failOver: switchOver },
  {
    name: 'frozen, thawed unfenced, synchronous',
    isSynchronous: true,
    failOver: freeze,
    afterwards: thaw,
  },
  {
    name: 'frozen, thawed unfenced, asynchronous',
    isSynchronous: false,
    failOver: freeze,
    afterwards: thaw,
  },
  {
    name: 'promoted while the primary goes on, asynchronous',
    isSynchronous: false,
    failOver: promoteUnfenced,
  },
  { name: 'primary read-only, synchronous', isSynchronous: true, failOver: makeReadOnly },
  {
    name: 'disk of the primary full, synchronous',
    isSynchronous: true,
    diskMb: SMALL_DISK_MB,
    failOver: fillDisk,
  },
  {
    name: 'kill -9, synchronous, PgBouncer in front of each server',
    isSynchronous: true,
    usesPooler: true,
    failOver: kill,
  },
]

async function startPair(
  { isSynchronous, usesPooler, diskMb, failOver, afterwards }: Pair,
  onEnd: OnEnd,
): Promise<Stores> {
  const primary = await PostgresNode.startPrimary({ diskMb })
  onEnd(() => primary.remove())
  const standby = await primary.addStandby()
  onEnd(() => standby.remove())
  if (isSynchronous) await primary.setSynchronousStandby(standby.name)
  const hosts: string[] = []
  for (const { host, url } of [standby, primary]) {
    if (!usesPooler) hosts.push(host)
    else {
      const pooler = await startPgBouncer(url)
      onEnd(() => pooler.stop())
      hosts.push(pooler.host)
    }
  }
  const redis = await RedisServer.start()
  onEnd(() => redis.kill())
  return {
    databaseUrl: `${urlOfHosts(...hosts)}${usesPooler ? '?pgbouncer=true' : ''}`,
    redisUrl: `redis://127.0.0.1:${redis.port}`,
    failOver: () => failOver(primary, standby),
    afterwards: async () => afterwards?.(primary),
    administer: (statements) => standby.administer(statements),
  }
}

function findMissing({ usesPooler, diskMb }: Pair): string | undefined {
  if (usesPooler && pgbouncerProgram === undefined) return 'pgbouncer'
  if (diskMb !== undefined && process.getuid?.() !== 0) return 'root, who can mount a small disk'
  return undefined
}

export const postgresRows: Row[] = PAIRS.map((pair) => ({
  name: pair.name,
  mayLoseOrders: !pair.isSynchronous,
  missing: findMissing(pair),
  start: (onEnd) => startPair(pair, onEnd),
}))
