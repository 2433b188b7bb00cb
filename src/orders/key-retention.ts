/** Releases the keys of old orders. */
import type { RunQuery } from '@order-once/idempotency'

/** $1 the age in days, by the database's clock; $2 how many keys at most. */
const RELEASE_KEYS = `
  update public.orders as old
  set released_key = old.idempotency_key, idempotency_key = null
  where id in (
    select id from public.orders
    where idempotency_key is not null and created_at < now() - $1::float8 * interval '1 day'
    order by created_at limit $2
    for update skip locked
  )
  returning id`

/**
 * Releases the keys of the oldest orders that are older than `retentionDays`, in one statement. The
 * orders stay, with the key in `released_key`.
 *
 * @returns how many keys were released, at most `limit`
 */
export async function releaseOldKeys(
  runQuery: RunQuery,
  retentionDays: number,
  limit: number,
): Promise<number> {
  return (await runQuery(RELEASE_KEYS, [retentionDays, limit])).length
}
