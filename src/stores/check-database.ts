/** Checks at the start that the database is as the service needs it, and reads its id. */
import { withDeadline } from '@order-once/idempotency/batching'
import type postgres from 'postgres'
import { getErrorCode } from '../error-code.ts'
import { QUERY_TIMEOUT_MS } from '../limits.ts'
import { StartError } from '../start-error.ts'
import { INSERT_PROBE } from './insert-probe.ts'
import { retryWhileStarting } from './postgres-session.ts'

/** The oldest version that the project of PostgreSQL still supports. */
const MIN_SERVER_VERSION = 140_000

/** What the service does with its tables; the clean-up included. */
const NEEDED_RIGHTS = {
  'public.orders': ['select', 'insert', 'update'],
  'public.idempotency_records': ['select', 'insert', 'update', 'delete'],
  'public.order_once_database': ['select'],
}

/** SQLSTATEs of an insert that fails until the tables change: constraint, schema, state, trigger. */
const NEEDS_CHANGE = /^(23|42|55000|P0)/

/**
 * Checks the encoding, the version, the tables, the rights of the role, and that an order can be inserted.
 *
 * @returns the id of the database
 * @throws {StartError} one line that says what is wrong and what to do
 */
export async function checkDatabase(url: string): Promise<string> {
  let id = ''
  try {
    await retryWhileStarting(url, async (client) => {
      id = await withDeadline(checkSchema(client), QUERY_TIMEOUT_MS, 'no response to a query')
      await checkInsert(client)
    })
    return id
  } catch (error) {
    if (error instanceof StartError) throw error
    const reason = error instanceof Error ? error.message : String(error)
    throw new StartError(`the database cannot be checked: ${reason}`)
  }
}

async function checkSchema(client: postgres.Sql): Promise<string> {
  await checkServer(client)
  for (const [table, rights] of Object.entries(NEEDED_RIGHTS)) {
    await checkTable(client, table, rights)
  }
  return readId(client)
}

/** A server that is read-only, full or locked may be writable later: the health check reports it. */
async function checkInsert(client: postgres.Sql): Promise<void> {
  try {
    await withDeadline(client.unsafe(INSERT_PROBE), QUERY_TIMEOUT_MS, 'no response to an insert')
  } catch (error) {
    if (!NEEDS_CHANGE.test(getErrorCode(error))) return
    throw new StartError(`an order cannot be inserted: ${(error as Error).message}`)
  }
}

/** Reads the id that the first migration has given the database. A copy of the database has it, too. */
async function readId(client: postgres.Sql): Promise<string> {
  const [row] = await client`select id from public.order_once_database`
  if (row) return row.id
  const insert = 'insert into public.order_once_database values (left(gen_random_uuid()::text, 8))'
  throw new StartError(`the table public.order_once_database is empty: run \`${insert}\``)
}

async function checkServer(client: postgres.Sql): Promise<void> {
  const [server] = await client`
    select current_setting('server_encoding') as encoding,
           current_setting('server_version_num')::int as version,
           current_setting('server_version') as version_name`
  if (server?.encoding !== 'UTF8') {
    throw new StartError(
      `the database has the encoding ${server?.encoding}, not UTF8: create it with ENCODING 'UTF8' TEMPLATE template0`,
    )
  }
  if (server.version < MIN_SERVER_VERSION) {
    throw new StartError(`PostgreSQL ${server.version_name} is too old: use 14 or later`)
  }
}

async function checkTable(client: postgres.Sql, table: string, rights: string[]): Promise<void> {
  const [found] =
    await client`select to_regclass(${table}) is not null as exists, current_user as role`
  if (!found?.exists) {
    throw new StartError(
      `the table ${table} does not exist, although its migration was applied: restore the database`,
    )
  }
  for (const right of rights) {
    const [granted] = await client`select has_table_privilege(${table}, ${right}) as has_right`
    if (granted?.has_right) continue
    const grant = `grant ${right} on ${table} to ${found.role}`
    throw new StartError(`the role ${found.role} may not ${right} in ${table}: run \`${grant}\``)
  }
}
