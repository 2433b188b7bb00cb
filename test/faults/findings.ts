/** What a run found: what clients saw, what the table holds, and how the instances behaved. */
import type postgres from 'postgres'
import { groupBy } from './group-by.ts'
import { checkHistory, type Exchange, IN_PROGRESS, REUSED, type ViolationKind } from './history.ts'
import type { Instance } from './instance.ts'
import type { Occurrence } from './schedule.ts'

/** Everything that must not happen: each list names examples, and must be empty. */
export interface Findings extends Record<ViolationKind, string[]> {
  /** acknowledged keys without an order */
  lost: string[]
  /** keys with several orders, first responses or different responses */
  doubled: string[]
  /** orders and responses that come from no request */
  invented: string[]
  /** responses that contradict the others of their key */
  unexplained: string[]
  /** keys that never got a 201 */
  unfinished: string[]
  /** results that no client must get, and how often */
  unexpectedResults: string[]
  /** instances that exited by themselves, or not as they must */
  instanceFailures: string[]
}

/** The order, a refusal, a failure after which the client sends it again, or the end of a connection. */
const EXPECTED_RESULTS = new Set([
  '201',
  REUSED,
  IN_PROGRESS,
  '500 internal-error',
  '503 database-unavailable',
  '503 overloaded',
  '503 shutting-down',
  'timed out',
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
])

/** What happens this soon after a fault is named together with it. */
const AFTERMATH_MS = 500

export async function collectFindings(
  exchanges: Exchange[],
  sql: postgres.Sql,
  { instances, occurrences }: { instances: Instance[]; occurrences: Occurrence[] },
): Promise<Findings> {
  const findings: Findings = {
    lost: [],
    doubled: [],
    invented: [],
    unexplained: [],
    unfinished: [],
    unexpectedResults: Object.entries(countResults(exchanges))
      .filter(([result]) => !EXPECTED_RESULTS.has(result))
      .map(([result, count]) => `${result} (${count} times)`),
    instanceFailures: instances.flatMap(({ failures }, index) =>
      failures.map(({ at, message }) => {
        const faults = occurrences.filter(
          ({ startedAt, endedAt }) => startedAt <= at && at <= endedAt + AFTERMATH_MS,
        )
        return `instance ${index} ${message} [during: ${faults.map(({ kind }) => kind).join(', ')}]`
      }),
    ),
  }
  const sent = groupBy(exchanges, ({ key }) => key)
  const stored = groupBy(await readOrders(sql), ({ key }) => key)
  for (const key of new Set([...sent.keys(), ...stored.keys()])) {
    const responses = (stored.get(key) ?? []).map(({ response }) => response)
    for (const { kind, message } of checkHistory(sent.get(key) ?? [], responses)) {
      findings[kind].push(`${key}: ${message}`)
    }
  }
  return findings
}

/** Counts each result. */
export function countResults(exchanges: Exchange[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { result } of exchanges) counts[result] = (counts[result] ?? 0) + 1
  return counts
}

/** Whether nothing was found. */
export function isClean(findings: Findings): boolean {
  return Object.values(findings).every((found) => found.length === 0)
}

/** Reads all orders. @returns of each its key, and the body of its 201 by the contract */
async function readOrders(sql: postgres.Sql): Promise<{ key: string; response: string }[]> {
  const rows = await sql`
    select id, user_id, item, amount::float8, idempotency_key, created_at from public.orders`
  return rows.map((order) => ({
    key: String(order.idempotency_key),
    response: JSON.stringify({ order }),
  }))
}
