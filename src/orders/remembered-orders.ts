/** Orders that only their responses in Redis remember: finds and restores them in Postgres. */
import type { RunQuery } from '@order-once/idempotency'
import { Ajv } from 'ajv'
import { UUID } from '../uuid.ts'
import { COLUMN_TYPES, type ColumnName } from './columns.ts'
import { compareKeys, formatArray } from './repository.ts'
import {
  buildResponse,
  FIELD_KEYWORDS,
  FIELD_NAMES,
  fingerprintOrder,
  NEW_ORDER,
  type Order,
} from './schema.ts'

/** A remembered order that is not in Postgres. */
export interface MissingOrder {
  order: Order
  /** the id of another order that has its key; undefined: the key is free */
  otherId: string | undefined
}

/** More than the clocks of two machines differ. */
const MAX_CLOCK_DIFFERENCE_MS = 24 * 60 * 60 * 1000

/** Checks fields as those of a request are checked. */
const isNewOrder = new Ajv({
  strict: false,
  validateSchema: false,
  keywords: FIELD_KEYWORDS,
}).compile(NEW_ORDER)

/**
 * Reads the order from its response. Others can write to Redis, and Postgres refuses the whole batch of a value
 * that it cannot have.
 *
 * @returns undefined if the service cannot have made this response and fingerprint for this key
 */
export function parseRememberedOrder(
  clientId: string,
  key: string,
  { statusCode, body, fingerprint }: { statusCode: number; body: string; fingerprint: string },
): Order | undefined {
  let members: Record<string, unknown> | undefined
  try {
    members = JSON.parse(body).order
  } catch {
    return undefined
  }
  const time = members?.created_at
  const order = {
    ...members,
    client_id: clientId,
    request_fingerprint: fingerprint,
    // The conversion of another value to a text can throw.
    created_at: typeof time === 'string' ? Date.parse(time) : Number.NaN,
  } as Order
  const fields = Object.fromEntries(FIELD_NAMES.map((name) => [name, order[name]]))
  const { id, idempotency_key, created_at } = order
  if (
    idempotency_key !== key ||
    typeof id !== 'string' ||
    !UUID.test(id) ||
    id !== id.toLowerCase() ||
    !(created_at >= 0 && created_at < Date.now() + MAX_CLOCK_DIFFERENCE_MS) ||
    !isNewOrder(fields) ||
    fingerprint !== fingerprintOrder(order)
  ) {
    return undefined
  }
  const response = buildResponse(order)
  return response.statusCode === statusCode && response.body === body ? order : undefined
}

/** $1 ids, $2 clients, $3 keys: arrays. */
const FIND_MISSING = `
  select remembered.id, other.id as other_id
  from unnest($1::text[], $2::text[], $3::text[]) as remembered (id, client_id, idempotency_key)
  left join public.orders same on same.id = remembered.id::uuid
  left join public.orders other
    on other.client_id = remembered.client_id and other.idempotency_key = remembered.idempotency_key
  where same.id is null`

/** Finds those of the orders that are not in Postgres. An order whose key was released is there. */
export async function findMissingOrders(
  runQuery: RunQuery,
  remembered: Order[],
): Promise<MissingOrder[]> {
  if (remembered.length === 0) return []
  const columns = (['id', 'client_id', 'idempotency_key'] as const).map((name) =>
    formatArray(remembered.map((order) => order[name])),
  )
  const rows = await runQuery(FIND_MISSING, columns)
  const otherIds = new Map(
    rows.map(({ id, other_id }) => [String(id), other_id === null ? undefined : String(other_id)]),
  )
  return remembered
    .filter(({ id }) => otherIds.has(id))
    .map((order) => ({ order, otherId: otherIds.get(order.id) }))
}

const RESTORED_COLUMNS = [
  'id',
  'client_id',
  ...FIELD_NAMES,
  'idempotency_key',
  'request_fingerprint',
  'created_at',
] as const satisfies ColumnName[]

/** As for an insert of new orders, with their times. */
const RESTORE = `
  insert into public.orders (${RESTORED_COLUMNS.join(', ')})
  select ${RESTORED_COLUMNS.map((name) => `${name}::${COLUMN_TYPES[name]}`).join(', ')}
  from unnest(${RESTORED_COLUMNS.map((_, i) => `$${i + 1}::text[]`).join(', ')})
    as lost (${RESTORED_COLUMNS.join(', ')})
  on conflict do nothing
  returning id`

/**
 * Inserts orders as they were: the same id, time, client and key. A row that exists is never changed.
 *
 * @returns the ids of those that were inserted
 */
export async function restoreOrders(runQuery: RunQuery, lost: Order[]): Promise<Set<string>> {
  if (lost.length === 0) return new Set()
  // In the order of inserts of new orders: two statements with other orders of keys would deadlock.
  const sorted = lost.toSorted(compareKeys)
  const columns = RESTORED_COLUMNS.map((name) =>
    formatArray(
      sorted.map((order) =>
        name === 'created_at' ? new Date(order.created_at).toISOString() : order[name],
      ),
    ),
  )
  const rows = await runQuery(RESTORE, columns)
  return new Set(rows.map(({ id }) => String(id)))
}
