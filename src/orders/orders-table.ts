import { sql } from 'drizzle-orm'
import { check, numeric, pgTable, text, timestamp, uuid, varchar } from 'drizzle-orm/pg-core'

/** The orders. The unique key is what makes an order happen once. */
export const orders = pgTable(
  'orders',
  {
    /** UUID version 7: ordered by time, so that new rows go to one end of the index */
    id: uuid().primaryKey(),
    userId: varchar('user_id', { length: 255 }).notNull(),
    item: varchar({ length: 255 }).notNull(),
    amount: numeric({ precision: 15, scale: 4 }).notNull(),
    /** null once the key is released and may serve a new order */
    idempotencyKey: text('idempotency_key').unique(),
    requestFingerprint: text('request_fingerprint').notNull(),
    createdAt: timestamp('created_at', { withTimezone: true, precision: 3 }).notNull().defaultNow(),
  },
  (table) => [check('orders_amount_positive', sql`${table.amount} > 0`)],
)
