/** Patroni on three members with etcd, and HAProxy in front, by the files of docs/deploy/patroni. */
import { type ChildProcess, execFile } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseEnv, promisify } from 'node:util'
import postgres from 'postgres'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import type { OnEnd } from '../failover/rows.ts'
import { spawnChild } from './child-processes.ts'
import { account, postgresPrograms } from './postgres-node.ts'
import { until } from './until.ts'

const FILES = new URL('../../docs/deploy/patroni/', import.meta.url)

/** The members in the files. */
const ADDRESSES = ['10.0.0.11', '10.0.0.12', '10.0.0.13']

/** etcd elects, Patroni makes a database, and two standbys copy it. */
const START_TIMEOUT_MS = 120_000

/** Patroni waits for its `ttl`, and then for an election. */
const FAILOVER_TIMEOUT_MS = 60_000

/** Of the Debian packages patroni, etcd-server and haproxy, whose programs need not be on the PATH. */
export const [patroni, patronictl, etcd, haproxy] = [
  'patroni',
  'patronictl',
  'etcd',
  'haproxy',
].map((name) =>
  [...(process.env.PATH ?? '').split(':'), '/usr/sbin']
    .map((folder) => join(folder, name))
    .find((file) => existsSync(file)),
)

/** Whether all programs are on this machine. */
export const hasPatroni = [patroni, patronictl, etcd, haproxy, postgresPrograms].every(Boolean)

/** The addresses of one member, and the folder of its files. */
export interface MemberPlace {
  name: string
  database: string
  restApi: string
  etcdClient: string
  etcdPeer: string
  folder: string
}

export interface PatroniCluster {
  /** the URL of an empty database, through HAProxy */
  proxyUrl: string
  /** its URL with the hosts of all members */
  hostsUrl: string
  /** Kills the Patroni and the Postgres of the primary. @returns when another one accepted writes */
  killPrimary(): Promise<number>
  /** Runs `patronictl switchover`. @returns when the new primary accepted writes */
  switchOver(): Promise<number>
  /** Runs statements as the superuser on the primary. */
  administer<T>(statements: (sql: postgres.Sql) => Promise<T>): Promise<T>
}

const OWNER = { name: 'order_once', password: 'order-once' }

/** The passwords of the file stay as they are. */
const SUPERUSER = 'postgres:CHANGE-ME-1'

/** Chooses free ports for the members. @param folder of all their files */
export async function placeMembers(folder: string): Promise<MemberPlace[]> {
  const places: MemberPlace[] = []
  for (const index of ADDRESSES.keys()) {
    const name = `pg${index + 1}`
    const ports = [await freePort(), await freePort(), await freePort(), await freePort()]
    const [database, restApi, etcdClient, etcdPeer] = ports.map((port) => `127.0.0.1:${port}`)
    const addresses = { database, restApi, etcdClient, etcdPeer } as Omit<
      MemberPlace,
      'name' | 'folder'
    >
    places.push({ name, folder: join(folder, name), ...addresses })
  }
  return places
}

/** Returns `patroni.yml` for a member: its addresses and folders are replaced, and nothing else. */
export function fillPatroni(places: MemberPlace[], place: MemberPlace): Promise<string> {
  return fillFile('patroni.yml', [
    ['name: pg1', `name: ${place.name}`],
    [listAddresses('2379'), places.map(({ etcdClient }) => etcdClient).join()],
    ['10.0.0.11:8008', place.restApi],
    ['10.0.0.11:5432', place.database],
    ['10.0.0.0/24', '127.0.0.1/32'],
    ['/usr/lib/postgresql/15/bin', String(postgresPrograms)],
    ['/var/lib/postgresql', place.folder],
    ['/var/run/postgresql', place.folder],
  ])
}

function fillEtcd(places: MemberPlace[], place: MemberPlace): Promise<string> {
  const peers = (addresses: string[]) =>
    addresses.map((address, i) => `pg${i + 1}=http://${address}`).join()
  return fillFile('etcd', [
    ['ETCD_NAME=pg1', `ETCD_NAME=${place.name}`],
    [peers(listAddresses('2380').split(',')), peers(places.map(({ etcdPeer }) => etcdPeer))],
    ['10.0.0.11:2379', place.etcdClient],
    ['10.0.0.11:2380', place.etcdPeer],
    ['/var/lib/etcd', place.folder],
  ])
}

/** HAProxy needs root to become another user, and there may be no syslog. */
const USER_AND_LOG = `    user haproxy
    group haproxy
    log /dev/log local0
`

const fillProxy = (places: MemberPlace[], address: string) =>
  fillFile('haproxy.cfg', [
    ['10.0.0.10:5432', address],
    [USER_AND_LOG, ''],
    ...places.map(
      ({ database, restApi }, i) =>
        [
          `${ADDRESSES[i]}:5432 check port 8008`,
          `${database} check port ${new URL(`http://${restApi}`).port}`,
        ] as [string, string],
    ),
  ])

const listAddresses = (port: string) => ADDRESSES.map((address) => `${address}:${port}`).join()

/** @throws if the file has none of what is to be replaced */
async function fillFile(name: string, replacements: [string, string][]): Promise<string> {
  let text = await readFile(new URL(name, FILES), 'utf8')
  for (const [from, to] of replacements) {
    if (!text.includes(from)) throw new Error(`${name} does not have ${from}`)
    text = text.replaceAll(from, to)
  }
  return text
}

/**
 * Starts etcd, Patroni and HAProxy, and creates an empty database.
 *
 * @param onEnd takes what ends them, also if the start fails
 */
export async function startPatroni(onEnd: OnEnd): Promise<PatroniCluster> {
  const folder = await mkdtemp(join(tmpdir(), 'order-once-patroni-'))
  onEnd(() => rm(folder, { recursive: true, force: true, maxRetries: 10 }))
  await chmod(folder, 0o755)
  const places = await placeMembers(folder)
  const killServers = () => places.map(killServer).filter((pid) => pid !== undefined)
  process.once('exit', killServers)
  onEnd(async () => {
    const pids = killServers()
    await until(() => !pids.some((pid) => existsSync(`/proc/${pid}`)))
    process.off('exit', killServers)
  })
  const proxyAddress = `127.0.0.1:${await freePort()}`
  const start = (program: string | undefined, args: string[], env: NodeJS.ProcessEnv = {}) => {
    const options = { ...account, cwd: folder, stdio: 'ignore' as const }
    const child = spawnChild(String(program), args, {
      ...options,
      env: { PATH: process.env.PATH, ...env },
    })
    onEnd(() => end(child))
    return child
  }
  const configuration = ({ folder }: MemberPlace) => join(folder, 'patroni.yml')

  for (const place of places) {
    await mkdir(place.folder, { mode: 0o700 })
    if (account) await chown(place.folder, account.uid, account.gid)
    await writeFile(configuration(place), await fillPatroni(places, place))
    start(etcd, [], parseEnv(await fillEtcd(places, place)))
  }
  const members = new Map(
    places.map((place) => [place, start(patroni, [configuration(place)])] as const),
  )
  const proxyFile = join(folder, 'haproxy.cfg')
  await writeFile(proxyFile, await fillProxy(places, proxyAddress))
  start(haproxy, ['-db', '-f', proxyFile])

  const isPrimary = (place: MemberPlace) =>
    withSuperuser(place, 'postgres', async (sql) => {
      const [row] = await sql`select not pg_is_in_recovery() as is_primary`
      return row?.is_primary === true
    }).catch(() => false)
  async function findPrimary(candidates = places): Promise<MemberPlace | undefined> {
    const found = await Promise.all(candidates.map(isPrimary))
    return candidates.find((_, i) => found[i])
  }
  const waitForPrimary = (candidates = places, timeoutMs = FAILOVER_TIMEOUT_MS) =>
    until(() => findPrimary(candidates), timeoutMs)
  const others = (place: MemberPlace) => places.filter((other) => other !== place)

  const first = await waitForPrimary(places, START_TIMEOUT_MS)
  await until(
    () =>
      withSuperuser(first, 'postgres', async (sql) => {
        const rows = await sql`select sync_state from pg_stat_replication where state = 'streaming'`
        return (
          rows.length === places.length - 1 && rows.some(({ sync_state }) => sync_state === 'sync')
        )
      }).catch(() => false),
    START_TIMEOUT_MS,
  )
  await withSuperuser(first, 'postgres', async (sql) => {
    await sql.unsafe(`create role ${OWNER.name} login password '${OWNER.password}'`)
    await sql.unsafe(`create database orders owner ${OWNER.name}`)
  })

  const createUrl = (...hosts: string[]) =>
    `postgres://${OWNER.name}:${OWNER.password}@${hosts}/orders`
  return {
    proxyUrl: createUrl(proxyAddress),
    hostsUrl: createUrl(...places.map(({ database }) => database)),
    async killPrimary() {
      const primary = await waitForPrimary()
      members.get(primary)?.kill('SIGKILL')
      killServer(primary)
      await waitForPrimary(others(primary))
      return performance.now()
    },
    async switchOver() {
      const primary = await waitForPrimary()
      const args = ['-c', configuration(primary), 'switchover', 'orders', '--force']
      const [, promotedAt] = await Promise.all([
        promisify(execFile)(String(patronictl), args, { cwd: folder }),
        waitForPrimary(others(primary)).then(() => performance.now()),
      ])
      return promotedAt
    },
    administer: async (statements) => withSuperuser(await waitForPrimary(), 'orders', statements),
  }
}

/** Patroni starts a Postgres that outlives it. @returns its process, if there is one */
function killServer({ folder }: MemberPlace): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync(join(folder, '15/orders/postmaster.pid'), 'utf8'), 10)
    // The file outlives its process, whose id may be that of another one now.
    if (!readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(folder)) return undefined
    process.kill(pid, 'SIGKILL')
    return pid
  } catch {
    return undefined // no such file, or no such process
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = once(child, 'exit')
  child.kill('SIGKILL')
  await exit
}

async function withSuperuser<T>(
  { database: address }: MemberPlace,
  database: string,
  statements: (sql: postgres.Sql) => Promise<T>,
): Promise<T> {
  const sql = postgres(`postgres://${SUPERUSER}@${address}/${database}`, {
    ...{ max: 1, fetch_types: false, connect_timeout: 5, onnotice: () => {} },
  })
  try {
    return await statements(sql)
  } finally {
    await sql.end({ timeout: 1 })
  }
}
