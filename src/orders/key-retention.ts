/** Releases the keys of old orders. */
import type { RunQuery } from '@order-once/idempotency'
import { DEFAULT_CLIENT_ID } from '../clients/clients-file.ts'

/**
 * $1 the age in days, $2 how many keys at most. Age and progress are measured by the database's clock
 * alone: the oldest order that still has its key comes first, and a row that is skipped now is due again.
 */
const RELEASE_KEYS = `
  with released as (
    update public.orders as old
    set released_key = old.idempotency_key, idempotency_key = null
    where id in (
      select id from public.orders
      where idempotency_key is not null and created_at < now() - $1::float8 * interval '1 day'
      order by created_at limit $2
      for update skip locked
    )
    returning case client_id when '${DEFAULT_CLIENT_ID}' then released_key
      else client_id || ',' || released_key end as record_key
  ), deleted as (
    delete from public.idempotency_records where key in (select record_key from released)
  )
  select record_key from released`

/**
 * Releases the keys of the oldest orders that are older than `retentionDays`, and deletes the records
 * that Postgres has for them, in one statement. The orders stay, with the key in `released_key`.
 *
 * @returns the released keys as the store of idempotency records has them, at most `limit`
 */
export async function releaseOldKeys(
  runQuery: RunQuery,
  retentionDays: number,
  limit: number,
): Promise<string[]> {
  const rows = await runQuery(RELEASE_KEYS, [retentionDays, limit])
  return rows.map(({ record_key }) => String(record_key))
}
