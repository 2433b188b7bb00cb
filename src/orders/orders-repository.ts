import { randomUUID } from 'node:crypto'
import { eq, sql } from 'drizzle-orm'
import postgres from 'postgres'
import { Batcher, Lane } from '../batcher.ts'
import type { Database, PostgresPool } from '../storage/postgres.ts'
import type { OrderInput } from './order.ts'
import { orders } from './orders-table.ts'

/** A row of the table. */
export type Order = typeof orders.$inferSelect

/** An order as a client sent it, the key it came under and the fingerprint of its request. */
export type NewOrder = OrderInput & { idempotencyKey: string; requestFingerprint: string }

/** The orders in Postgres. */
export interface OrdersRepository {
  /**
   * Inserts the order, unless its key is taken already.
   *
   * @returns the order that stands under the key, and whether this call put it there
   * @throws if Postgres fails or does not answer in time; the order may then exist or not
   */
  insertOnce(order: NewOrder): Promise<{ order: Order; inserted: boolean }>
  /** @throws if Postgres fails or does not answer in time */
  findByKey(key: string): Promise<Order | undefined>
  /** How many orders wait for an insert, and how many may. */
  queue(): { waiting: number; limit: number }
}

/** How inserts go to Postgres. */
export interface InsertOptions {
  /** the most orders in one statement; 1: each has a statement of its own */
  maxBatch: number
  /** told of each insert, how many orders it has */
  onBatch?: (size: number) => void
  /** called for each row that belongs to another query, before the error is thrown */
  onRowMismatch?: () => void
}

/** Postgres or its driver returned a row that was not asked for. */
export class RowMismatchError extends Error {
  override name = 'RowMismatchError'
}

/** A key can be released between the refused insert and the look for its row, but hardly twice. */
const MAX_ATTEMPTS = 3

/**
 * While one batch is carried out, Postgres and this process prepare the next; more would only be
 * smaller ones.
 */
const MAX_BATCHES_ON_THE_WAY = 2
/** As many single rows as the pool has connections. */
const MAX_ROWS_ON_THE_WAY = 10

/**
 * Orders that wait for a batch, in batches: all of them go when those on the way have returned, so
 * that none waits longer than one query may take.
 */
const MAX_BATCHES_WAITING = MAX_BATCHES_ON_THE_WAY
/** The least that may wait, however small the batches: what Postgres does in about half a second. */
const MIN_ROWS_WAITING = 1_000

/**
 * One shape for any number of rows, so that Postgres prepares it once. It returns the inserted ones,
 * without what is known here already.
 */
const INSERT_ROWS = `
  insert into orders (id, user_id, item, amount, idempotency_key, request_fingerprint)
  select id, user_id, item, amount, idempotency_key, request_fingerprint
  from json_to_recordset($1::text::json) as new (
    id uuid, user_id text, item text, amount numeric, idempotency_key text, request_fingerprint text
  )
  on conflict (idempotency_key) do nothing
  returning id, created_at`

/** A row on its way, in the table's terms. */
interface NewRow {
  id: string
  user_id: string
  item: string
  amount: number
  idempotency_key: string
  request_fingerprint: string
}

/**
 * Keeps orders in the given database. What is to be inserted while an insert is on its way gathers,
 * and goes as one statement when that one returns.
 */
export function createOrdersRepository(
  pool: PostgresPool,
  { maxBatch, onBatch, onRowMismatch }: InsertOptions,
): OrdersRepository {
  /** @throws {RowMismatchError} if the row is not the one that was asked for */
  function checkRow(isExpected: boolean): void {
    if (isExpected) return
    onRowMismatch?.()
    throw new RowMismatchError('Postgres returned a row that was not asked for')
  }

  const inserts = new Batcher<NewRow, Date | undefined>({
    send: insertRows,
    maxItems: maxBatch,
    lane: new Lane(maxBatch === 1 ? MAX_ROWS_ON_THE_WAY : MAX_BATCHES_ON_THE_WAY),
    maxWaiting: Math.max(MIN_ROWS_WAITING, MAX_BATCHES_WAITING * maxBatch),
    onBatch,
  })

  /** @returns for each row when it was inserted; undefined if its key was taken */
  async function insertRows(
    rows: NewRow[],
  ): Promise<(Date | undefined | Promise<Date | undefined>)[]> {
    try {
      const inserted = await insert(rows)
      return rows.map(({ id }) => inserted.get(id))
    } catch (error) {
      if (rows.length === 1 || !mayBeForOneRow(error)) throw error
      return rows.map(async (row) => (await insert([row])).get(row.id))
    }
  }

  async function insert(rows: NewRow[]): Promise<Map<string, Date>> {
    // Two statements that meet the same keys in another order would wait for each other.
    const inOrder = rows.toSorted((a, b) => (a.idempotency_key < b.idempotency_key ? -1 : 1))
    const inserted = await pool.run((database) =>
      database.$client.unsafe(INSERT_ROWS, [JSON.stringify(inOrder)], { prepare: true }),
    )
    const createdAt = new Map(inserted.map(({ id, created_at }) => [id, new Date(created_at)]))
    const sent = new Set(rows.map(({ id }) => id))
    checkRow(inserted.every(({ id }) => sent.has(id)))
    return createdAt
  }

  async function findByKey(key: string): Promise<Order | undefined> {
    const [order] = await pool.run((database) => prepareFind(database).execute({ key }))
    checkRow(order === undefined || order.idempotencyKey === key)
    return order
  }

  return {
    findByKey,
    queue: () => inserts.queue,

    async insertOnce({ user_id, item, amount, idempotencyKey, requestFingerprint }) {
      const row = {
        id: newId(),
        user_id,
        item,
        amount,
        idempotency_key: idempotencyKey,
        request_fingerprint: requestFingerprint,
      }
      for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        const createdAt = await inserts.add(row)
        if (createdAt) return { order: orderOf(row, createdAt), inserted: true }
        const order = await findByKey(idempotencyKey)
        if (order) return { order, inserted: order.id === row.id }
      }
      throw new Error('the key was taken and released again and again')
    },
  }
}

const preparedFinds = new WeakMap<Database, ReturnType<typeof buildFind>>()

/** Built once for each connection pool: it takes drizzle as long as Postgres takes to run it. */
function prepareFind(database: Database) {
  const prepared = preparedFinds.get(database) ?? buildFind(database)
  preparedFinds.set(database, prepared)
  return prepared
}

const buildFind = (database: Database) =>
  database
    .select()
    .from(orders)
    .where(eq(orders.idempotencyKey, sql.placeholder('key')))
    .prepare('find_order_by_key')

/**
 * A UUID of version 7 (RFC 9562 §5.7): the time in ms, then the random digits of one of version 4, of
 * which Node makes many at a time.
 */
function newId(): string {
  const time = Date.now().toString(16).padStart(12, '0')
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`
}

/** The row as it stands in the table: what it was given, and when. */
function orderOf(row: NewRow, createdAt: Date): Order {
  return {
    id: row.id,
    userId: row.user_id,
    item: row.item,
    amount: String(row.amount),
    idempotencyKey: row.idempotency_key,
    releasedKey: null,
    requestFingerprint: row.request_fingerprint,
    createdAt,
  }
}

/**
 * What Postgres says of itself rather than of a row, by class of SQLSTATE: connection lost,
 * resources used up, shut down by an operator, system error.
 */
const NOT_FOR_A_ROW = ['08', '53', '57', '58']

function mayBeForOneRow(error: unknown): boolean {
  return error instanceof postgres.PostgresError && !NOT_FOR_A_ROW.includes(error.code.slice(0, 2))
}
