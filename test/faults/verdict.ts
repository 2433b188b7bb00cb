import type postgres from 'postgres'
import type { Misconduct } from './instance.ts'
import type { Journal, SentOrder } from './journal.ts'
import { faultsAt, type Occurrence } from './schedule.ts'

/** What was found in the end; each list names what it holds, and should be empty. */
export interface Verdict {
  /** acknowledged keys without an order */
  lost: string[]
  /** keys with several orders, several first answers or several bodies */
  doubled: string[]
  /** orders, or parts of them, that no client sent or that no client was told of in this way */
  invented: string[]
  /** keys that were refused or not answered to the end */
  unanswered: string[]
  /** other bodies under used keys that were not refused as they should be */
  changedAccepted: string[]
  /** answers that no client should get, and how often */
  unexpectedAnswers: string[]
  /** instances that ended by themselves, or did not end as they should */
  misconduct: string[]
}

/**
 * What may come in answer to an order: the order; a refusal after which it is to be sent again; or
 * the end of a connection, as Node names it.
 */
const EXPECTED = new Set([
  '201',
  '409 request-in-progress',
  '429 rate-limit-exceeded',
  '500 internal-error',
  '503 overloaded',
  '503 shutting-down',
  'timed out',
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
])
const REFUSED = '409 idempotency-key-reused'

interface Row {
  id: string
  user_id: string
  item: string
  amount: string
  idempotency_key: string | null
  created_at: Date
}

/** Compares the journal of the clients with the table, from outside the service. */
export async function judge(
  journal: Journal,
  sql: postgres.Sql,
  { misconduct, occurrences }: { misconduct: Misconduct[]; occurrences: Occurrence[] },
): Promise<Verdict> {
  const rows = await sql<Row[]>`
    select id, user_id, item, amount, idempotency_key, created_at from orders`
  const rowsOfKey = new Map<string | null, Row[]>()
  for (const row of rows) {
    const key = row.idempotency_key
    rowsOfKey.set(key, [...(rowsOfKey.get(key) ?? []), row])
  }
  const verdict: Verdict = {
    lost: [],
    doubled: [],
    invented: [],
    unanswered: [],
    changedAccepted: unlike(journal.changedResults, new Set([...EXPECTED, REFUSED]), ['201']),
    unexpectedAnswers: unlike(journal.results, EXPECTED),
    misconduct: misconduct.map(
      ({ instance, at, what }) =>
        `instance ${instance} ${what} [during: ${faultsAt(at, occurrences).join(', ')}]`,
    ),
  }
  for (const order of journal.orders.values()) {
    judgeOrder(order, rowsOfKey.get(order.key) ?? [], verdict)
    rowsOfKey.delete(order.key)
  }
  for (const key of rowsOfKey.keys()) verdict.invented.push(`${key}: nobody sent this key`)
  return verdict
}

function judgeOrder(order: SentOrder, rows: Row[], verdict: Verdict): void {
  const { key, input, bodies, firstAnswers } = order
  const [row] = rows
  if (bodies.size === 0) verdict.unanswered.push(key)
  else if (!row) verdict.lost.push(key)
  if (rows.length > 1) verdict.doubled.push(`${key}: ${rows.length} orders`)
  if (firstAnswers > 1) verdict.doubled.push(`${key}: ${firstAnswers} first answers`)
  if (bodies.size > 1) verdict.doubled.push(`${key}: ${[...bodies].join(' and ')}`)
  if (!row) return
  const isAsSent =
    row.user_id === input.user_id && row.item === input.item && Number(row.amount) === input.amount
  if (!isAsSent) verdict.invented.push(`${key}: the order is not what was sent`)
  for (const body of bodies) {
    if (body !== bodyOf(row)) verdict.invented.push(`${key}: told ${body}, stored ${bodyOf(row)}`)
  }
}

/** The body of a 201, as the contract has it. */
function bodyOf({ id, user_id, item, amount, idempotency_key, created_at }: Row): string {
  return JSON.stringify({
    order: {
      id,
      user_id,
      item,
      amount: Number(amount),
      idempotency_key,
      created_at: created_at.toISOString(),
    },
  })
}

function unlike(results: Map<string, number>, expected: Set<string>, but: string[] = []): string[] {
  return [...results]
    .filter(([result]) => !expected.has(result) || but.includes(result))
    .map(([result, count]) => `${result} (${count} times)`)
}

/** Whether nothing at all was found. */
export function isClean(verdict: Verdict): boolean {
  return Object.values(verdict).every((found) => found.length === 0)
}
