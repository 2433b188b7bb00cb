/** The orders in Postgres. */
import { randomUUID } from 'node:crypto'
import { Batcher, ConcurrencyLimit } from '@order-once/idempotency/batching'
import { fastifyPlugin } from 'fastify-plugin'
import postgres from 'postgres'
import type { PostgresPool } from '../stores/postgres-pool.ts'
import { COLUMN_TYPES, type ColumnName } from './columns.ts'
import { FIELD_NAMES, NEW_ORDER, type Order } from './schema.ts'
import { traceOrders } from './trace-repository.ts'

declare module 'fastify' {
  interface FastifyInstance {
    orders: OrdersRepository
  }
}

/** An order to insert: its fields, its client, its key and the fingerprint of its request. */
export type OrderToInsert = Omit<Order, 'id' | 'created_at'>

export interface OrdersRepository {
  /**
   * Inserts the order, unless its key has an order already.
   *
   * @returns the order of the key, and whether this call inserted it
   * @throws if Postgres fails or does not respond in time; the order may then exist or not
   */
  insertOnce(order: OrderToInsert): Promise<{ order: Order; inserted: boolean }>
  /** @throws if Postgres fails or does not respond in time */
  findByKey(clientId: string, key: string): Promise<Order | undefined>
  /**
   * Finds an order of the client, also one whose key was released.
   *
   * @param id a UUID
   * @throws if Postgres fails or does not respond in time
   */
  findById(clientId: string, id: string): Promise<Order | undefined>
  /** How many orders wait for an insert, and how many may. */
  queue(): { waiting: number; limit: number }
}

export interface RepositoryOptions {
  /** how many orders one statement inserts at most; 1: each has a statement of its own */
  maxBatch: number
  /** called with the number of orders of each insert */
  onBatch?: (size: number) => void
  /** called for each row that belongs to another query, before the error is thrown */
  onRowMismatch?: () => void
}

/** Postgres or its driver returned the row of another query. */
export class RowMismatchError extends Error {
  override name = 'RowMismatchError'
}

/** A key can be released between the refused insert and the look-up of its row, but hardly twice. */
const MAX_ATTEMPTS = 3

/** While Postgres runs one batch, this process prepares the next; more would only be smaller. */
const MAX_BATCHES_IN_FLIGHT = 2
/** As many single rows as the pool has connections. */
const MAX_ROWS_IN_FLIGHT = 10

/** All that wait are sent when those in flight return: none waits longer than one query may take. */
const MAX_BATCHES_WAITING = MAX_BATCHES_IN_FLIGHT
/** The least that may wait, however small the batches: what Postgres inserts in about half a second. */
const MIN_ROWS_WAITING = 1_000

const INSERTED_COLUMNS = [
  'id',
  'client_id',
  ...FIELD_NAMES,
  'idempotency_key',
  'request_fingerprint',
] as const satisfies ColumnName[]

const CREATED_AT_MS = '(extract(epoch from created_at) * 1000)::bigint as created_at'

/**
 * One text for any number of rows, so that Postgres prepares it once. Each parameter is the array of one
 * column.
 */
const INSERT_ROWS = `
  insert into public.orders (${INSERTED_COLUMNS.join(', ')})
  select ${INSERTED_COLUMNS.map((name) => `${name}::${COLUMN_TYPES[name]}`).join(', ')}
  from unnest(${INSERTED_COLUMNS.map((_, i) => `$${i + 1}::text[]`).join(', ')})
    as new (${INSERTED_COLUMNS.join(', ')})
  on conflict (client_id, idempotency_key) do nothing
  returning id, ${CREATED_AT_MS}`

const FIND_BY_KEY = `
  select ${INSERTED_COLUMNS.join(', ')}, ${CREATED_AT_MS} from public.orders
  where client_id = $1 and idempotency_key = $2`

/** A released key is still part of the response. */
const FIND_BY_ID = `
  select ${INSERTED_COLUMNS.join(', ')}, coalesce(idempotency_key, released_key) as idempotency_key,
    ${CREATED_AT_MS}
  from public.orders where client_id = $1 and id = $2`

type NewRow = Omit<Order, 'created_at'>

/**
 * Creates the repository. Orders that arrive while inserts are in flight are collected, and inserted by
 * one statement.
 */
export function createOrdersRepository(
  pool: Pick<PostgresPool, 'query'>,
  { maxBatch, onBatch, onRowMismatch }: RepositoryOptions,
): OrdersRepository {
  const inserts = new Batcher<NewRow, number | undefined>({
    send: insertRows,
    maxItems: maxBatch,
    limit: new ConcurrencyLimit(maxBatch === 1 ? MAX_ROWS_IN_FLIGHT : MAX_BATCHES_IN_FLIGHT),
    maxWaiting: Math.max(MIN_ROWS_WAITING, MAX_BATCHES_WAITING * maxBatch),
    onBatch,
  })

  /** @returns for each row when it was inserted, in ms since 1970; undefined if its key was taken */
  async function insertRows(
    rows: NewRow[],
  ): Promise<(number | undefined | Promise<number | undefined>)[]> {
    try {
      const inserted = await insert(rows)
      return rows.map(({ id }) => inserted.get(id))
    } catch (error) {
      if (rows.length === 1 || !mayConcernOneRow(error)) throw error
      return rows.map(async (row) => (await insert([row])).get(row.id))
    }
  }

  /** @returns the time of the insert of each row, by id, in ms since 1970; undefined if its key was taken */
  async function insert(rows: NewRow[]): Promise<Map<string, number | undefined>> {
    const sorted = rows.toSorted(compareKeys)
    const columns = INSERTED_COLUMNS.map((name) => formatArray(sorted.map((row) => row[name])))
    const inserted = await pool.query(INSERT_ROWS, columns, {
      // An insert of keys that are all taken does not show that writing works.
      isWritten: ({ length }) => length > 0,
    })
    const createdAt = new Map<string, number | undefined>()
    for (const { id } of rows) createdAt.set(id, undefined)
    for (const row of inserted) {
      checkRow(createdAt.has(row.id))
      createdAt.set(row.id, Number(row.created_at))
    }
    return createdAt
  }

  async function findByKey(clientId: string, key: string): Promise<Order | undefined> {
    const [row] = await pool.query(FIND_BY_KEY, [clientId, key])
    if (row === undefined) return undefined
    checkRow(row.client_id === clientId && row.idempotency_key === key)
    return parseRow(row)
  }

  async function findById(clientId: string, id: string): Promise<Order | undefined> {
    const [row] = await pool.query(FIND_BY_ID, [clientId, id])
    if (row === undefined) return undefined
    checkRow(row.client_id === clientId && row.id === id.toLowerCase())
    return parseRow(row)
  }

  /** @throws {RowMismatchError} if the row belongs to another query */
  function checkRow(isExpected: boolean): void {
    if (isExpected) return
    onRowMismatch?.()
    throw new RowMismatchError('Postgres returned the row of another query')
  }

  return {
    findByKey,
    findById,
    queue: () => inserts.queue,

    async insertOnce(order) {
      const row = { id: createId(), ...order }
      for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        const createdAt = await inserts.add(row)
        if (createdAt !== undefined) {
          return { order: { ...row, created_at: createdAt }, inserted: true }
        }
        const existing = await findByKey(order.client_id, order.idempotency_key)
        if (existing) return { order: existing, inserted: existing.id === row.id }
      }
      throw new Error(`the key was taken and released ${MAX_ATTEMPTS} times`)
    },
  }
}

/** Decorates the app with `orders`, the repository on `app.postgres`. */
export const ordersRepository = fastifyPlugin(
  async (
    app,
    options: { maxBatch: number; wrap?: (orders: OrdersRepository) => OrdersRepository },
  ) => {
    const { maxBatch, wrap = (orders) => orders } = options
    const orders = wrap(
      createOrdersRepository(app.postgres, {
        maxBatch,
        onBatch: app.metrics.countInsert,
        onRowMismatch: app.metrics.countRowMismatch,
      }),
    )
    app.decorate('orders', app.tracer ? traceOrders(orders, app.tracer) : orders)
  },
  { name: 'orders-repository', dependencies: ['metrics', 'postgres'] },
)

/**
 * Creates a UUID of version 7 (RFC 9562 §5.7): the time in ms, then the random digits of one of version
 * 4, of which Node makes many at a time.
 */
function createId(): string {
  const time = Date.now().toString(16).padStart(12, '0')
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`
}

/** One order of all keys: two statements with the same keys in different orders would deadlock. */
export function compareKeys(
  a: Pick<Order, 'client_id' | 'idempotency_key'>,
  b: Pick<Order, 'client_id' | 'idempotency_key'>,
): number {
  if (a.idempotency_key !== b.idempotency_key) return a.idempotency_key < b.idempotency_key ? -1 : 1
  return a.client_id < b.client_id ? -1 : 1
}

/** The fields that Postgres returns as text although they are numbers: `numeric` is exact. */
const NUMERIC_FIELDS = FIELD_NAMES.filter((name) => NEW_ORDER.properties[name].type === 'number')

/**
 * Formats an array as Postgres reads it (PostgreSQL 18 §8.15.2). An absent field is NULL. (The driver formats
 * arrays only if it has looked up their types on each new connection.)
 */
export function formatArray(values: (string | number | boolean | undefined)[]): string {
  const elements = values.map((value) =>
    typeof value === 'string' ? quoteElement(value) : (value ?? 'NULL'),
  )
  return `{${elements.join()}}`
}

/** Few texts have a character to escape: a test comes first, because it is faster. */
function quoteElement(text: string): string {
  return `"${/["\\]/.test(text) ? text.replace(/["\\]/g, '\\$&') : text}"`
}

/** Reads a row of the table. A field that is null was not sent. */
function parseRow(row: Record<string, unknown>): Order {
  const order: Record<string, unknown> = { ...row, created_at: Number(row.created_at) }
  for (const name of NUMERIC_FIELDS) if (row[name] !== null) order[name] = Number(row[name])
  for (const name of FIELD_NAMES) if (row[name] === null) delete order[name]
  return order as Order
}

/** SQLSTATE classes of errors that one row causes: data exception, constraint violation. */
const ROW_ERROR_CLASSES = ['22', '23']

function mayConcernOneRow(error: unknown): boolean {
  return (
    error instanceof postgres.PostgresError && ROW_ERROR_CLASSES.includes(error.code.slice(0, 2))
  )
}
