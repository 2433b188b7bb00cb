import { chmod, chown, copyFile, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import postgres from 'postgres'
import { startEmbeddedPostgres } from '../../src/stores/embedded/postgres.ts'
import { administer } from './database.ts'
import { until } from './until.ts'

/** A Postgres of a test's own, with a Unix socket, that can have certificates. */
export async function startPrivatePostgres() {
  const folder = await mkdtemp(join(tmpdir(), 'order-once-test-'))
  const first = await startEmbeddedPostgres(folder)
  const data = join(first.directory, 'data')
  await giveToPostgres(folder, data)
  await administer(first.url, (sql) =>
    sql.unsafe(`alter system set unix_socket_directories = '${folder}'`),
  )
  await first.stop()
  const server = await startEmbeddedPostgres(folder)

  return {
    url: new URL(server.url),
    /** has its socket, and room for files */
    folder,

    /** @param file a certificate whose key is in `<file>.key`; undefined: no TLS */
    async useCertificate(file: string | undefined): Promise<void> {
      const settings = { ssl: file ? 'on' : 'off', ssl_cert_file: '', ssl_key_file: '' }
      if (file) {
        settings.ssl_cert_file = await copyTo(file, data)
        settings.ssl_key_file = await copyTo(`${file}.key`, data)
      }
      await administer(server.url, async (sql) => {
        for (const [name, value] of Object.entries(settings)) {
          await sql.unsafe(`alter system set ${name} = '${value}'`)
        }
        await sql`select pg_reload_conf()`
      })
      await until(async () => {
        const sql = postgres(server.url, { max: 1 })
        const [shown] = await sql`
          select current_setting('ssl') as ssl, current_setting('ssl_cert_file') as file`
        await sql.end()
        return shown?.ssl === settings.ssl && shown.file === settings.ssl_cert_file
      })
    },

    async stop(): Promise<void> {
      await server.stop()
      await rm(server.directory, { recursive: true, force: true })
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Copies a file to where Postgres reads it. @returns its name */
async function copyTo(file: string, data: string): Promise<string> {
  const copy = join(data, basename(file))
  await copyFile(file, copy)
  await chmod(copy, 0o600)
  await giveToPostgres(copy, data)
  return basename(file)
}

/** Postgres may run as another user than the tests. */
async function giveToPostgres(path: string, data: string): Promise<void> {
  const { uid, gid } = await stat(data)
  await chown(path, uid, gid)
}
