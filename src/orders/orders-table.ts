import { sql } from 'drizzle-orm'
import { check, index, numeric, pgTable, text, timestamp, uuid, varchar } from 'drizzle-orm/pg-core'

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
    /** the key that the order held until it was released */
    releasedKey: text('released_key'),
    requestFingerprint: text('request_fingerprint').notNull(),
    createdAt: timestamp('created_at', { withTimezone: true, precision: 3 }).notNull().defaultNow(),
  },
  (table) => [
    check('orders_amount_positive', sql`${table.amount} > 0`),
    // Where the release of keys goes on. An insert does not touch it: its row has no released key.
    index('orders_released').on(table.id).where(sql`${table.releasedKey} is not null`),
  ],
)
