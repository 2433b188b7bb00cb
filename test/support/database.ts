/** Databases in the Postgres of the tests. */
import postgres from 'postgres'

/** A database with the newest schema, of which the tests' databases are copies. */
export const TEMPLATE = 'order_once_template'

/** Creates a database in the server at `serverUrl`, and returns its URL. */
export async function createDatabase(
  serverUrl: string,
  name: string,
  { template = 'template1' } = {},
): Promise<string> {
  await administer(serverUrl, (sql) => sql`create database ${sql(name)} template ${sql(template)}`)
  const url = new URL(serverUrl)
  url.pathname = name
  return url.href
}

/** Runs one statement on a connection of its own. */
export async function administer(url: string, statement: (sql: postgres.Sql) => Promise<unknown>) {
  const sql = postgres(url, { max: 1, fetch_types: false, onnotice: () => {} })
  try {
    await statement(sql)
  } finally {
    await sql.end()
  }
}
