/**
 * The table `orders`. Its unique key is what makes an order happen once. Only `npm run db:generate` loads this
 * file: with drizzle, a start takes twice the CPU. See docs/performance.md.
 */
import { sql } from 'drizzle-orm'
import { check, customType, index, pgTable, unique } from 'drizzle-orm/pg-core'
import { COLUMN_TYPES, type ColumnName } from './columns.ts'
import { FIELD_NAMES, type FieldName, NEW_ORDER } from './schema.ts'

const column = (name: ColumnName) =>
  customType<{ data: unknown }>({ dataType: () => COLUMN_TYPES[name] })()

const REQUIRED: readonly FieldName[] = NEW_ORDER.required

/** An optional field that was not sent is null. */
const fieldColumn = (name: FieldName) =>
  REQUIRED.includes(name) ? column(name).notNull() : column(name)

const fieldColumns = Object.fromEntries(
  FIELD_NAMES.map((name) => [name, fieldColumn(name)]),
) as Record<FieldName, ReturnType<typeof fieldColumn>>

export const orders = pgTable(
  'orders',
  {
    id: column('id').primaryKey(),
    client_id: column('client_id').notNull().default('default'),
    ...fieldColumns,
    idempotency_key: column('idempotency_key'),
    released_key: column('released_key'),
    request_fingerprint: column('request_fingerprint').notNull(),
    created_at: column('created_at').notNull().default(sql`now()`),
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
