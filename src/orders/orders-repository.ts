import { eq, sql } from 'drizzle-orm'
import { v7 as uuidv7 } from 'uuid'
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
}

/** A key can be released between the refused insert and the look for its row, but hardly twice. */
const MAX_ATTEMPTS = 3

/** Keeps orders in the given database. */
export function createOrdersRepository(pool: PostgresPool): OrdersRepository {
  // The pool can replace its connections, and with them what was prepared for them.
  const preparedFor = new WeakMap<Database, ReturnType<typeof prepare>>()
  function queries(database: Database) {
    let prepared = preparedFor.get(database)
    if (prepared === undefined) {
      prepared = prepare(database)
      preparedFor.set(database, prepared)
    }
    return prepared
  }

  async function findByKey(key: string): Promise<Order | undefined> {
    const [order] = await pool.run((database) => queries(database).select.execute({ key }))
    return order
  }

  return {
    findByKey,

    async insertOnce({ user_id: userId, item, amount, idempotencyKey, requestFingerprint }) {
      const id = uuidv7()
      const row = { id, userId, item, amount: String(amount), idempotencyKey, requestFingerprint }
      for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        const [inserted] = await pool.run((database) => queries(database).insert.execute(row))
        if (inserted) return { order: inserted, inserted: true }
        const order = await findByKey(idempotencyKey)
        if (order) return { order, inserted: order.id === id }
      }
      throw new Error('the key was taken and released again and again')
    },
  }
}

/** Built once: drizzle takes as long to build a query as Postgres to run it. */
function prepare(database: Database) {
  const insert = database
    .insert(orders)
    .values({
      id: sql.placeholder('id'),
      userId: sql.placeholder('userId'),
      item: sql.placeholder('item'),
      amount: sql.placeholder('amount'),
      idempotencyKey: sql.placeholder('idempotencyKey'),
      requestFingerprint: sql.placeholder('requestFingerprint'),
    })
    .onConflictDoNothing({ target: orders.idempotencyKey })
    .returning()
    .prepare('insert_order')
  const select = database
    .select()
    .from(orders)
    .where(eq(orders.idempotencyKey, sql.placeholder('key')))
    .prepare('find_order_by_key')
  return { insert, select }
}
