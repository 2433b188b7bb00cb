/** The table `orders`. Its unique key is what makes an order happen once. */
import { sql } from 'drizzle-orm'
import {
  check,
  customType,
  index,
  numeric,
  pgTable,
  text,
  timestamp,
  unique,
  uuid,
  varchar,
} from 'drizzle-orm/pg-core'
import type { FieldName } from './schema.ts'

/**
 * Text that is compared byte by byte. In a database's own collation, an upgrade of the C library can
 * break a unique index without a warning, and a repeated key would make a second order.
 */
const key = customType<{ data: string }>({ dataType: () => 'text collate "C"' })

/** A column for each field of the schema: one that is missing does not compile. */
const FIELD_COLUMNS = {
  user_id: varchar({ length: 255 }).notNull(),
  item: varchar({ length: 255 }).notNull(),
  amount: numeric({ precision: 15, scale: 4 }).notNull(),
} satisfies Record<FieldName, unknown>

export const orders = pgTable(
  'orders',
  {
    /** UUID version 7: ordered by time, so that new rows go to one end of the index */
    id: uuid().primaryKey(),
    client_id: key().notNull().default('default'),
    ...FIELD_COLUMNS,
    /** null once the key is released and may serve a new order */
    idempotency_key: key(),
    /** the key that the order kept until it was released */
    released_key: key(),
    request_fingerprint: text().notNull(),
    created_at: timestamp({ withTimezone: true, precision: 3 }).notNull().defaultNow(),
  },
  (table) => [
    unique('orders_client_id_idempotency_key').on(table.client_id, table.idempotency_key),
    check('orders_amount_positive', sql`${table.amount} > 0`),
    // Finds the keys that are due for release, oldest first.
    index('orders_created_at')
      .on(table.created_at)
      .where(sql`${table.idempotency_key} is not null`),
  ],
)
