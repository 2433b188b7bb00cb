import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import {
  createClient,
  toDriverOptions,
  urlWithoutCredentials,
} from '../../src/stores/postgres-connection.ts'
import { waitForPostgres, withDedicatedConnection } from '../../src/stores/postgres-session.ts'
import { parseDatabaseUrl } from '../../src/stores/postgres-url.ts'
import { CertificateAuthority } from '../support/certificates.ts'
import { startPrivatePostgres } from '../support/private-postgres.ts'
import { SILENT_LOG } from '../support/silent-log.ts'
import { emptyDatabase } from '../support/stores.ts'

/** What the driver makes of a URL. */
function driverOptions(url: string) {
  const target = parseDatabaseUrl(url)
  return createClient(target, target.hosts[0]).options
}

/** What a session says about itself. */
async function describeSession(url: string) {
  return withDedicatedConnection(url, async (client) => {
    const [row] = await client`
      select s.ssl as "isEncrypted", a.client_addr is null as "isSocket", a.application_name as name,
        current_database() as database, current_user as user
      from pg_stat_ssl s join pg_stat_activity a using (pid) where pid = pg_backend_pid()`
    return row
  })
}

describe('the environment', () => {
  test('changes nothing, whatever variable of Postgres it has', () => {
    const url = 'postgres://h/db'
    const expected = JSON.stringify(driverOptions(url))
    const { env } = process
    const deleted = new Set<string | symbol>()
    process.env = new Proxy(env, {
      get(target, name: string) {
        if (!name.startsWith('PG')) return target[name]
        return deleted.has(name) ? undefined : 'nonsense'
      },
      deleteProperty: (_target, name) => Boolean(deleted.add(name)),
    })
    onTestFinished(() => {
      process.env = env
    })
    const options = driverOptions(url)
    expect(JSON.stringify(options)).toBe(expected)
    expect((options.pass as unknown as () => string)()).toBe('')
  })

  test('breaks no good URL', async () => {
    const { url } = await emptyDatabase()
    onTestFinished(() => void vi.unstubAllEnvs())
    for (const [name, value] of Object.entries({
      PGTARGETSESSIONATTRS: 'any',
      PGSSL: 'require',
      PGHOST: '192.0.2.1',
      PGAPPNAME: 'other',
    })) {
      vi.stubEnv(name, value)
    }
    expect(await describeSession(url)).toMatchObject({ isEncrypted: false, name: 'order-once' })
  })
})

describe('the parameters of a URL', () => {
  test('that are for libpq or Prisma do not reach the server', async () => {
    const { url } = await emptyDatabase()
    const parameters =
      'channel_binding=require&connection_limit=5&gssencmode=disable&keepalives=1&keepalives_idle=5&target_session_attrs=read-write&schema=public'
    expect(await describeSession(`${url}?${parameters}`)).toMatchObject({ name: 'order-once' })
  })

  test('that are for the server reach it', async () => {
    const { url } = await emptyDatabase()
    const parameters = 'application_name=shop&options=-c%20lock_timeout%3D7s'
    const [row] = await withDedicatedConnection(
      `${url}?${parameters}`,
      (client) =>
        client`select current_setting('lock_timeout') as timeout, current_setting('application_name') as name`,
    )
    expect(row).toEqual({ timeout: '7s', name: 'shop' })
  })

  test('switch prepared statements off with pgbouncer=true, also for a query that wants one', async () => {
    const { url } = await emptyDatabase()
    const countPrepared = (url: string) =>
      withDedicatedConnection(url, async (client) => {
        await client.unsafe('select $1::int', [1], { prepare: true })
        const [row] = await client`select count(*)::int from pg_prepared_statements`
        return row?.count
      })
    expect(await countPrepared(url)).toBeGreaterThan(0)
    expect(await countPrepared(`${url}?pgbouncer=true`)).toBe(0)
  })
})

test('an IPv6 address reaches the driver whole', () => {
  const target = parseDatabaseUrl('postgres://u:p@[::1]:5433/db')
  expect(toDriverOptions(target, target.hosts[0])).toMatchObject({ host: ['::1'], port: [5433] })
  expect(driverOptions('postgres://u:p@[::1]:5433/db')).toMatchObject({
    ...{ host: ['::1'], port: [5433], path: false },
  })
})

test.each([
  ['postgres://u:p@db.example:5433/orders?sslmode=require', 'db.example:5433/orders'],
  ['postgresql://u:p%25@db.example', 'db.example:5432/u'],
  ['postgres://u:p@[::1]:5433/orders', '[::1]:5433/orders'],
  ['postgres://u:p@h1,h2:5433/orders', 'h1:5432,h2:5433/orders'],
  ['postgres://u:p@/orders?host=/cloudsql/a:b:c', '/cloudsql/a:b:c/.s.PGSQL.5432/orders'],
  ['postgres://u:p@%2Ftmp:5433/orders', '/tmp/.s.PGSQL.5433/orders'],
])('the place of %s is %s, without credentials', (url, place) => {
  expect(urlWithoutCredentials(url)).toBe(place)
})

describe('a Postgres of its own', () => {
  let server: Awaited<ReturnType<typeof startPrivatePostgres>>
  beforeAll(async () => {
    server = await startPrivatePostgres()
  })
  afterAll(() => server?.stop())

  /** The server's URL with another host and parameters. */
  function urlAt(host: string, parameters: Record<string, string> = {}): string {
    const { username, password, port, pathname } = server.url
    return `postgres://${username}:${password}@${host}:${port}${pathname}?${new URLSearchParams(parameters)}`
  }

  test('is reached by its Unix socket, in every form, without TLS', async () => {
    const { username, password, port, pathname } = server.url
    const credentials = `${username}:${password}`
    const folder = server.folder
    for (const url of [
      `postgres://${credentials}@${encodeURIComponent(folder)}:${port}${pathname}`,
      `postgres://${credentials}@/postgres?host=${folder}&port=${port}&sslmode=require`,
      `postgres:///postgres?host=${folder}&port=${port}&user=${username}&password=${password}`,
      `postgres://${credentials}@localhost:${port}/postgres?host=${encodeURIComponent(folder)}`,
    ]) {
      expect(await describeSession(url)).toMatchObject({ isSocket: true, database: 'postgres' })
    }
  })

  describe('without TLS', () => {
    beforeAll(() => server.useCertificate(undefined))

    test('is reached without sslmode', async () => {
      expect(await describeSession(urlAt('127.0.0.1', {}))).toMatchObject({ isEncrypted: false })
    })

    test.each(['disable', 'allow', 'prefer'])('is reached with sslmode=%s', async (sslmode) => {
      const session = await describeSession(urlAt('127.0.0.1', { sslmode }))
      expect(session).toMatchObject({ isEncrypted: false })
    })

    test('is refused at once with sslmode=require, in one line', async () => {
      const url = urlAt('127.0.0.1', { sslmode: 'require' })
      await expect(waitForPostgres(url, SILENT_LOG)).rejects.toMatchObject({
        name: 'StartError',
        message: expect.stringMatching(
          /^Postgres at \S+ cannot be used: sslmode requires TLS, but the server offers none$/,
        ),
      })
    })
  })

  describe.each([
    ['localhost', 'DNS:localhost', 'localhost', '127.0.0.1'],
    ['the address', 'IP:127.0.0.1', '127.0.0.1', 'localhost'],
  ])('with a certificate for %s', (_name, subject, right, wrong) => {
    let sslrootcert: string
    let strange: string
    beforeAll(async () => {
      const authority = new CertificateAuthority(server.folder)
      sslrootcert = authority.file
      strange = new CertificateAuthority(server.folder, 'strange').file
      await server.useCertificate(authority.issue(`server-${right}`, subject))
    })
    const connect = (host: string, parameters: Record<string, string>) =>
      describeSession(urlAt(host, parameters)).then((session) => session?.isEncrypted)

    test('is encrypted as sslmode says', async () => {
      expect(await connect(wrong, {})).toBe(true)
      expect(await connect(right, { sslmode: 'disable' })).toBe(false)
      for (const sslmode of ['allow', 'prefer', 'require']) {
        expect(await connect(wrong, { sslmode })).toBe(true)
      }
      expect(await connect(right, { ssl: 'true' })).toBe(true)
      expect(await connect(right, { sslmode: 'require', sslnegotiation: 'direct' })).toBe(true)
    })

    test('is verified with sslmode=verify-full, its name too', async () => {
      const full = { sslmode: 'verify-full', sslrootcert }
      expect(await connect(right, full)).toBe(true)
      expect(await connect(right, { ...full, sslnegotiation: 'direct' })).toBe(true)
      await expect(connect(wrong, full)).rejects.toThrow("does not match certificate's altnames")
    })

    test('is verified with sslmode=verify-ca and with sslmode=require and an authority, but not its name', async () => {
      for (const sslmode of ['verify-ca', 'require']) {
        expect(await connect(wrong, { sslmode, sslrootcert })).toBe(true)
        await expect(connect(right, { sslmode, sslrootcert: strange })).rejects.toThrow(
          'unable to verify the first certificate',
        )
      }
    })

    test('is not trusted by the authorities of Node.js', async () => {
      for (const parameters of [{ sslmode: 'verify-full' }, { sslrootcert: 'system' }]) {
        await expect(connect(right, parameters)).rejects.toThrow('unable to verify')
      }
    })

    test('is named in one line when it is refused', async () => {
      const url = urlAt(wrong, { sslmode: 'verify-full', sslrootcert })
      const message = expect.stringMatching(
        /^Postgres at \S+ cannot be used: Hostname\/IP does not match certificate's altnames: .*$/,
      )
      await expect(waitForPostgres(url, SILENT_LOG)).rejects.toMatchObject({
        name: 'StartError',
        message,
      })
    })
  })
})
