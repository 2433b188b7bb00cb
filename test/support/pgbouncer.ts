/** PgBouncer, a connection pooler in front of Postgres. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { spawnChild } from './child-processes.ts'
import { until } from './until.ts'

/** The program, of which the Debian package is not on the PATH of every user. */
export const pgbouncerProgram = ['pgbouncer', '/usr/sbin/pgbouncer'].find(
  (program) => spawnSync(program, ['--version']).status === 0,
)

/**
 * Starts a PgBouncer in transaction mode, in front of the server of a URL.
 *
 * @param poolSize how many connections to the server it shares among all of its clients
 * @returns the URL of the same database through it
 */
export async function startPgBouncer(serverUrl: string, poolSize = 5) {
  if (pgbouncerProgram === undefined) throw new Error('there is no pgbouncer on this machine')
  const { hostname, port: serverPort, username, password, pathname } = new URL(serverUrl)
  const port = await freePort()
  const folder = await mkdtemp(join(tmpdir(), 'order-once-pgbouncer-'))
  await chmod(folder, 0o755) // for root, it runs as another user
  const configuration = join(folder, 'pgbouncer.ini')
  const users = join(folder, 'users.txt')
  await writeFile(users, `"${username}" "${decodeURIComponent(password)}"\n`)
  await writeFile(
    configuration,
    `[databases]
* = host=${hostname} port=${serverPort}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = trust
auth_file = ${users}
pool_mode = transaction
default_pool_size = ${poolSize}
server_login_retry = 1
`,
  )
  const account = process.getuid?.() === 0 ? ['-u', 'postgres'] : []
  const child = spawnChild(pgbouncerProgram, ['-q', ...account, configuration], { stdio: 'ignore' })
  const url = new URL(serverUrl)
  url.hostname = '127.0.0.1'
  url.port = `${port}`
  url.searchParams.set('pgbouncer', 'true')
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
    await rm(folder, { recursive: true, force: true })
  }
  await until(() => isReady(`postgres://${username}@127.0.0.1:${port}${pathname}`))
  return { url: url.href, host: `127.0.0.1:${port}`, stop }
}

/** Also if the server behind it refuses: a standby is not yet a primary. */
async function isReady(url: string): Promise<boolean> {
  const sql = postgres(url, { max: 1, prepare: false, fetch_types: false, connect_timeout: 2 })
  try {
    await sql`select 1`
    return true
  } catch {
    return false
  } finally {
    await sql.end({ timeout: 1 })
  }
}
