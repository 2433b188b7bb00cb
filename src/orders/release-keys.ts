import { sql } from 'drizzle-orm'
import type { Database } from '../storage/postgres.ts'
import { orders } from './orders-table.ts'

/**
 * Releases the keys of the oldest orders, of those that are older than `retentionDays`, in one
 * statement that looks at no more than `limit` orders. The orders stay, and tell in `released_key`
 * which key they had.
 *
 * Ids grow with time and keys are released in the order of the ids, so it goes on behind the last
 * released one. It stops at the first order that is too young: if the clocks of two instances
 * differed, others behind that one may be older, but none is ever passed over.
 *
 * @returns how many keys were released
 */
export async function releaseOldKeys(
  database: Database,
  retentionDays: number,
  limit: number,
): Promise<number> {
  const released = await database.execute(sql`
    with oldest as (
      select id, created_at from ${orders}
      where id > coalesce(
        (select id from ${orders} where released_key is not null order by id desc limit 1),
        '00000000-0000-0000-0000-000000000000'
      )
      order by id limit ${limit}
    ), due as (
      select id, bool_and(created_at < now() - ${`${retentionDays} days`}::interval)
        over (order by id) as is_due
      from oldest
    )
    update ${orders} as old
    set released_key = old.idempotency_key, idempotency_key = null
    from due
    where old.id = due.id and due.is_due
    returning 1`)
  return released.length
}
