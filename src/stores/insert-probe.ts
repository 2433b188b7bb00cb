/** A statement that shows whether orders can be inserted. */

/** The SQLSTATE by which the statement undoes its insert; Postgres has no such code. */
const UNDO = 'UNDO1'

/** A probe that waits for a lock ends before its caller has given it up, and leaves no backend behind. */
const LOCK_TIMEOUT_MS = 500

/**
 * Inserts an order and rolls it back, in a transaction that commits: that fails without the right to insert,
 * without the unique constraint or room on the disk, or while a trigger refuses it, and waits for a synchronous
 * standby as an order does. No client can send such a key, which has a blank.
 */
export const INSERT_PROBE = `
  do $$
  begin
    perform set_config('lock_timeout', '${LOCK_TIMEOUT_MS}', true);
    insert into public.orders (id, user_id, item, amount, idempotency_key, request_fingerprint)
    values (gen_random_uuid(), 'health check', 'health check', 1,
            'health check ' || gen_random_uuid(), '')
    on conflict (client_id, idempotency_key) do nothing;
    if not found then raise exception 'the insert of an order inserted no row'; end if;
    raise sqlstate '${UNDO}';
  exception when sqlstate '${UNDO}' then null;
  end $$`
