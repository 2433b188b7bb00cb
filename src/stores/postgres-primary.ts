/** Finds and follows the primary among the hosts of a `DATABASE_URL`. */
import { setTimeout as sleep } from 'node:timers/promises'
import { withDeadline } from '@order-once/idempotency/batching'
import type { FastifyBaseLogger } from 'fastify'
import type postgres from 'postgres'
import { getErrorCode } from '../error-code.ts'
import { DatabaseUnavailableError } from './database-unavailable.ts'
import { createClient, formatHost } from './postgres-connection.ts'
import { type DatabaseHost, type DatabaseTarget, parseDatabaseUrl } from './postgres-url.ts'

/** A host that does not respond delays the choice among the others by no more. */
const PROBE_TIMEOUT_MS = 1_000

/** A new primary is found within this time: short for clients, and a fraction of a percent of a core. */
const PROBE_INTERVAL_MS = 500

/**
 * Reads the system identifier, and the timeline of a primary, as eight hex digits, or why the server accepts no
 * writes. (The timeline in `pg_control_checkpoint()` is the old one for seconds after a promotion.)
 */
const PROBE = `
  select system_identifier::text as system, pg_postmaster_start_time()::text as started, case
    when pg_is_in_recovery() then 'is a standby'
    when current_setting('transaction_read_only')::bool then 'is read-only'
    else left(pg_walfile_name(pg_current_wal_lsn()), 8)
  end as state
  from pg_control_system()`

/** SQLSTATE classes by which a server refuses a client for good: authorization, no such database. */
const REFUSAL = /^(28|3D)/

/** What a probe of a host has found. */
interface HostState {
  host: DatabaseHost
  /** the identifier that initdb gave to the server and its standbys; undefined: the probe failed */
  system?: string
  /** when the server was started: two addresses of one server have the same */
  started?: string
  /** of a primary */
  timeline?: number
  /** when probes began to find a primary without interruption, and when the last one began */
  primarySince: number
  probedAt: number
  /** of any other: what is wrong, as the rest of a sentence about the host */
  problem?: string
  /** what the probe failed with */
  error?: unknown
}

/** No host of the URL is a primary that may be used. */
class NoPrimaryError extends DatabaseUnavailableError {
  override name = 'NoPrimaryError'
  readonly code: string

  constructor(states: HostState[], last: LastPrimary | undefined) {
    const problems = states.map((state) => `${formatHost(state.host)} ${describe(state, last)}`)
    super(`no host of DATABASE_URL is the primary: ${problems.join('; ')}`)
    // With the code of a refusal, a start stops at once instead of trying again.
    const codes = states.map(({ error }) => getErrorCode(error))
    this.code = codes.find((code) => REFUSAL.test(code)) ?? NO_PRIMARY
  }
}

/** The code of the error that no host is the primary. */
export const NO_PRIMARY = 'NO_PRIMARY'

/** The last primary that this process has used among the hosts of a URL. */
interface LastPrimary {
  /** as `formatHost` says */
  host: string
  system: string
  timeline: number
}

/** By the hosts of the URL: what the pool has found applies to dedicated connections, too, and the reverse. */
const lastPrimaries = new Map<string, LastPrimary>()

const getHostsKey = ({ hosts }: DatabaseTarget) => hosts.map(formatHost).join(',')

/** @returns undefined if this process has used none yet, or the URL has a single host */
export const readLastPrimary = (url: string): LastPrimary | undefined =>
  lastPrimaries.get(getHostsKey(parseDatabaseUrl(url)))

/** From now on, this process uses no server of another installation or on an older timeline. */
export function setLastPrimary(url: string, last: LastPrimary): void {
  lastPrimaries.set(getHostsKey(parseDatabaseUrl(url)), last)
}

/**
 * Refuses primaries of this installation on an older timeline from now on.
 *
 * @returns whether the last primary is one of them
 */
export function requireTimeline(url: string, system: string, timeline: number): boolean {
  const last = readLastPrimary(url)
  if (last?.system !== system || last.timeline >= timeline) return false
  setLastPrimary(url, { ...last, timeline })
  return true
}

/**
 * Creates a client for the primary among the hosts of a URL. A single host is not probed.
 *
 * @param options in addition to those of `toDriverOptions`
 * @throws {DatabaseUnavailableError} if no host is the primary
 */
export async function createPrimaryClient(
  url: string,
  options?: Parameters<typeof createClient>[2],
): Promise<postgres.Sql> {
  const target = parseDatabaseUrl(url)
  const [first, ...others] = target.hosts
  if (others.length === 0) return createClient(target, first, options)
  const states = await Promise.all(target.hosts.map((host) => probeOnce(target, host)))
  return createClient(target, choosePrimary(target, states).host, options)
}

/** Finds the current primary. */
export interface PrimaryFollower {
  /** @throws {DatabaseUnavailableError} if no host was the primary at its last probe */
  find(): Promise<DatabaseHost>
  close(): void
}

/**
 * Probes each host of several again and again, on a connection of its own. Two kinds of primary are never used:
 * one whose timeline is older than that of an earlier one, because another server has replaced it, and one of
 * another installation, which has other orders.
 *
 * @param onMove called when another host has become the primary
 */
export function followPrimary(
  target: DatabaseTarget,
  log: FastifyBaseLogger,
  onMove: () => void,
): PrimaryFollower {
  const { hosts } = target
  if (hosts.length === 1) return { find: async () => hosts[0], close: () => {} }
  const closing = new AbortController()
  const clients = new Set<postgres.Sql>()
  const states = new Map<DatabaseHost, HostState>()
  const foreign = new Set<DatabaseHost>()
  let loggedRivals: string | undefined
  let primary: DatabaseHost | undefined
  let resolveFirstRound = () => {}
  const firstRound = new Promise<void>((resolve) => {
    resolveFirstRound = resolve
  })

  async function watch(host: DatabaseHost): Promise<void> {
    let client: postgres.Sql | undefined
    while (!closing.signal.aborted) {
      client ??= createProbeClient(target, host)
      clients.add(client)
      const state = await probe(client, host, states.get(host))
      if (state.error !== undefined) {
        clients.delete(client)
        endClient(client)
        client = undefined
      }
      if (!closing.signal.aborted) update(state)
      await sleep(PROBE_INTERVAL_MS, undefined, { signal: closing.signal }).catch(() => {})
    }
  }

  function update(state: HostState): void {
    states.set(state.host, state)
    if (states.size < hosts.length) return
    try {
      moveTo(choosePrimary(target, inOrder()))
    } catch {
      // `find` throws the same.
    }
    for (const state of states.values()) warnIfForeign(state)
    warnOfRivals()
    resolveFirstRound()
  }

  const inOrder = () => hosts.flatMap((host) => states.get(host) ?? [])

  function moveTo({ host, timeline }: HostState): void {
    if (host === primary) return
    const isFirst = primary === undefined
    primary = host
    if (isFirst) return
    log.warn(`Postgres at ${formatHost(host)} is the primary now, on timeline ${timeline}`)
    onMove()
  }

  function warnIfForeign({ host, system }: HostState): void {
    const last = lastPrimaries.get(getHostsKey(target))
    if (!last || !system || system === last.system || foreign.has(host)) return
    foreign.add(host)
    log.warn(
      `Postgres at ${formatHost(host)} is of another installation than ${last.host} (system identifier ${system}, not ${last.system}) and is not used: remove it from DATABASE_URL`,
    )
  }

  function warnOfRivals(): void {
    const rivals = describeRivals(inOrder())
    if (rivals === undefined || rivals === loggedRivals) return
    loggedRivals = rivals
    log.warn(`${rivals}; ${primary ? formatHost(primary) : 'none'} is used: fence the other one`)
  }

  for (const host of hosts) void watch(host)

  return {
    async find() {
      await firstRound
      return choosePrimary(target, inOrder()).host
    },
    close() {
      closing.abort()
      for (const client of clients) endClient(client)
    },
  }
}

async function probeOnce(
  target: DatabaseTarget,
  host: DatabaseHost,
  previous?: HostState,
): Promise<HostState> {
  const client = createProbeClient(target, host)
  try {
    return await probe(client, host, previous)
  } finally {
    endClient(client)
  }
}

const createProbeClient = (target: DatabaseTarget, host: DatabaseHost) =>
  createClient(target, host, { connect_timeout: PROBE_TIMEOUT_MS / 1000 })

const endClient = (client: postgres.Sql) => void client.end({ timeout: 0 }).catch(() => {})

async function probe(
  client: postgres.Sql,
  host: DatabaseHost,
  previous?: HostState,
): Promise<HostState> {
  const probedAt = performance.now()
  try {
    const query = client.unsafe(PROBE)
    const [row] = await withDeadline(query, PROBE_TIMEOUT_MS, 'does not respond')
    const system = String(row?.system)
    const started = String(row?.started)
    const state = String(row?.state)
    const wasPrimary = previous?.timeline !== undefined && previous.started === started
    const primarySince = wasPrimary ? previous.primarySince : performance.now()
    const found = { host, system, started, primarySince, probedAt }
    if (/^[0-9A-F]{8}$/.test(state)) return { ...found, timeline: Number.parseInt(state, 16) }
    return { ...found, problem: state }
  } catch (error) {
    const reason = (error instanceof Error && error.message) || getErrorCode(error)
    return { host, problem: `failed (${reason})`, error, primarySince: probedAt, probedAt }
  }
}

/**
 * Returns the primary with the highest timeline, which is the last primary from now on. Of several on one
 * timeline, the one that is in use stays.
 *
 * @throws {DatabaseUnavailableError} if there is none, or the first choice is among several installations
 */
function choosePrimary(target: DatabaseTarget, states: HostState[]): HostState {
  const key = getHostsKey(target)
  const last = lastPrimaries.get(key)
  const known = states.filter(({ system }) => system !== undefined)
  if (!last && new Set(known.map(({ system }) => system)).size > 1) {
    const systems = known.map(({ host, system }) => `${formatHost(host)} has ${system}`)
    throw new DatabaseUnavailableError(
      `the hosts of DATABASE_URL are of different installations: by system identifier, ${systems.join('; ')}`,
    )
  }
  let newest: HostState | undefined
  for (const state of states) {
    if (describe(state, last) !== undefined) continue
    const { timeline = 0 } = state
    const { timeline: newestTimeline = -1 } = newest ?? {}
    const isInUse = formatHost(state.host) === last?.host
    if (timeline > newestTimeline || (timeline === newestTimeline && isInUse)) newest = state
  }
  if (newest?.system === undefined || newest.timeline === undefined) {
    throw new NoPrimaryError(states, last)
  }
  const { host, system, timeline } = newest
  lastPrimaries.set(key, { host: formatHost(host), system, timeline })
  return newest
}

/** Says why a host is not the primary that may be used, as the rest of a sentence; undefined: it may be. */
function describe(
  { system, timeline = 0, problem }: HostState,
  last: LastPrimary | undefined,
): string | undefined {
  if (last && system && system !== last.system)
    return `is of another installation than ${last.host}`
  if (problem !== undefined) return problem
  if (last && timeline < last.timeline)
    return `is on the old timeline ${timeline}, not ${last.timeline}`
  return undefined
}

/**
 * Probes the hosts of a URL twice, so that a switchover between two probes is no finding.
 *
 * @returns which two servers accept writes, as a sentence
 */
export async function findRivals(url: string): Promise<string | undefined> {
  const target = parseDatabaseUrl(url)
  if (target.hosts.length === 1) return undefined
  const first = await Promise.all(target.hosts.map((host) => probeOnce(target, host)))
  const second = await Promise.all(first.map((state) => probeOnce(target, state.host, state)))
  return describeRivals(second)
}

/** Names two servers of one installation that were primaries at the same time. */
function describeRivals(states: HostState[]): string | undefined {
  const primaries = states.filter(({ timeline }) => timeline !== undefined)
  for (const one of primaries) {
    const other = primaries.find(
      (state) =>
        state.system === one.system &&
        state.started !== one.started &&
        state.primarySince <= one.probedAt &&
        one.primarySince <= state.probedAt,
    )
    if (!other) continue
    return `Postgres at ${formatHost(one.host)} (timeline ${one.timeline}) and at ${formatHost(other.host)} (timeline ${other.timeline}) both accept writes`
  }
  return undefined
}
