/** The table `order_once_database`: which database a record in Redis belongs to. */
import { pgTable, text } from 'drizzle-orm/pg-core'

export const databaseIdentity = pgTable('order_once_database', {
  /** eight random hex digits, in the only row, written by the first migration */
  id: text().primaryKey(),
})
