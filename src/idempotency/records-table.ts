import { index, pgTable, text, timestamp } from 'drizzle-orm/pg-core'

/** Claims and answers, for services without Redis. */
export const idempotencyRecords = pgTable(
  'idempotency_records',
  {
    key: text().primaryKey(),
    fingerprint: text().notNull(),
    token: text().notNull(),
    /** the finished answer as JSON; null while the request is at work */
    answer: text(),
    expiresAt: timestamp('expires_at', { withTimezone: true }).notNull(),
    createdAt: timestamp('created_at', { withTimezone: true }).notNull().defaultNow(),
  },
  (table) => [index('idempotency_records_expires_at').on(table.expiresAt)],
)
