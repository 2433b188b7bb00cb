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
 * Reads the timeline of a primary, as eight hex digits, or why the server accepts no writes. (The timeline
 * in `pg_control_checkpoint()` is the old one for seconds after a promotion.)
 */
const PROBE = `
  select case
    when pg_is_in_recovery() then 'is a standby'
    when current_setting('transaction_read_only')::bool then 'is read-only'
    else left(pg_walfile_name(pg_current_wal_lsn()), 8)
  end as state`

/** SQLSTATE classes by which a server refuses a client for good: authorization, no such database. */
const REFUSAL = /^(28|3D)/

/** What a probe of a host has found. */
interface HostState {
  host: DatabaseHost
  /** of a primary */
  timeline?: number
  /** of any other: what is wrong, as the rest of a sentence about the host */
  problem?: string
  /** what the probe failed with */
  error?: unknown
}

/** No host of the URL is a primary that may be used. */
class NoPrimaryError extends DatabaseUnavailableError {
  override name = 'NoPrimaryError'
  readonly code: string

  constructor(states: HostState[], minTimeline: number) {
    const problems = states.map(
      ({ host, timeline, problem = `is on the old timeline ${timeline}, not ${minTimeline}` }) =>
        `${formatHost(host)} ${problem}`,
    )
    super(`no host of DATABASE_URL is the primary: ${problems.join('; ')}`)
    // With the code of a refusal, a start stops at once instead of trying again.
    const codes = states.map(({ error }) => getErrorCode(error))
    this.code = codes.find((code) => REFUSAL.test(code)) ?? NO_PRIMARY
  }
}

/** The code of the error that no host is the primary. */
export const NO_PRIMARY = 'NO_PRIMARY'

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
  return createClient(target, choosePrimary(states).host, options)
}

/** Finds the current primary. */
export interface PrimaryFollower {
  /** @throws {DatabaseUnavailableError} if no host was the primary at its last probe */
  find(): Promise<DatabaseHost>
  close(): void
}

/**
 * Probes each host of several again and again, on a connection of its own. A primary whose timeline is older
 * than that of an earlier one is never used: another server has replaced it.
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
  let primary: DatabaseHost | undefined
  let minTimeline = 0
  let resolveFirstRound = () => {}
  const firstRound = new Promise<void>((resolve) => {
    resolveFirstRound = resolve
  })

  async function watch(host: DatabaseHost): Promise<void> {
    let client: postgres.Sql | undefined
    while (!closing.signal.aborted) {
      client ??= createProbeClient(target, host)
      clients.add(client)
      const state = await probe(client, host)
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
    const found = findNewest()
    if (found?.timeline !== undefined) {
      minTimeline = found.timeline
      if (found.host !== primary) moveTo(found.host)
    }
    resolveFirstRound()
  }

  /** Of two on one timeline, the one that is in use stays. */
  function findNewest(): HostState | undefined {
    const current = primary && states.get(primary)
    return findPrimary([...(current ? [current] : []), ...inOrder()], minTimeline)
  }

  const inOrder = () => hosts.flatMap((host) => states.get(host) ?? [])

  function moveTo(host: DatabaseHost): void {
    const isFirst = primary === undefined
    primary = host
    if (isFirst) return
    log.warn(`Postgres at ${formatHost(host)} is the primary now, on timeline ${minTimeline}`)
    onMove()
  }

  for (const host of hosts) void watch(host)

  return {
    async find() {
      await firstRound
      const found = findNewest()
      if (!found) throw new NoPrimaryError(inOrder(), minTimeline)
      return found.host
    },
    close() {
      closing.abort()
      for (const client of clients) endClient(client)
    },
  }
}

async function probeOnce(target: DatabaseTarget, host: DatabaseHost): Promise<HostState> {
  const client = createProbeClient(target, host)
  try {
    return await probe(client, host)
  } finally {
    endClient(client)
  }
}

const createProbeClient = (target: DatabaseTarget, host: DatabaseHost) =>
  createClient(target, host, { connect_timeout: PROBE_TIMEOUT_MS / 1000 })

const endClient = (client: postgres.Sql) => void client.end({ timeout: 0 }).catch(() => {})

async function probe(client: postgres.Sql, host: DatabaseHost): Promise<HostState> {
  try {
    const query = client.unsafe(PROBE)
    const [row] = await withDeadline(query, PROBE_TIMEOUT_MS, 'does not respond')
    const state = String(row?.state)
    if (/^[0-9A-F]{8}$/.test(state)) return { host, timeline: Number.parseInt(state, 16) }
    return { host, problem: state }
  } catch (error) {
    const reason = (error instanceof Error && error.message) || getErrorCode(error)
    return { host, problem: `failed (${reason})`, error }
  }
}

/** @throws {NoPrimaryError} */
function choosePrimary(states: HostState[]): HostState {
  const found = findPrimary(states, 0)
  if (!found) throw new NoPrimaryError(states, 0)
  return found
}

/** Returns the primary with the highest timeline; of several with that, the first. */
function findPrimary(states: HostState[], minTimeline: number): HostState | undefined {
  let newest: HostState | undefined
  for (const state of states) {
    const { timeline = -1 } = state
    if (timeline >= minTimeline && timeline > (newest?.timeline ?? -1)) newest = state
  }
  return newest
}
