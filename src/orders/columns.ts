/** The columns of the table `orders` and their types in SQL. */
import type { FieldName, Order } from './schema.ts'

/**
 * Text that is compared byte by byte. In a database's own collation, an upgrade of the C library can
 * break a unique index without a warning, and a repeated key would make a second order.
 */
const KEY = 'text collate "C"'

/** A column for each field of the schema: one that is missing does not compile. */
const FIELD_TYPES = {
  user_id: 'varchar(255)',
  item: 'varchar(255)',
  amount: 'numeric(15, 4)',
} satisfies Record<FieldName, string>

export const COLUMN_TYPES = {
  /** UUID version 7: ordered by time, so that new rows go to one end of the index */
  id: 'uuid',
  client_id: KEY,
  ...FIELD_TYPES,
  /** null once the key is released and may serve a new order */
  idempotency_key: KEY,
  /** the key that the order kept until it was released */
  released_key: KEY,
  request_fingerprint: 'text',
  created_at: 'timestamp (3) with time zone',
} satisfies Record<keyof Order | 'released_key', string>

export type ColumnName = keyof typeof COLUMN_TYPES
