import { userInfo } from 'node:os'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type DatabaseTarget, parseDatabaseUrl } from '../../src/stores/postgres-url.ts'

/** What most forms have in common. */
const USUAL = {
  user: 'u',
  password: 'p',
  database: 'db',
  tls: { mode: 'prefer', context: undefined, isDirect: false },
  usesPooler: false,
  startupParameters: { application_name: 'order-once' },
} satisfies Partial<DatabaseTarget>

const at = (host: string, port = 5432) => ({ hosts: [{ host, port }] })
const REQUIRE = { tls: { ...USUAL.tls, mode: 'require' } }

/** The URLs that services and frameworks hand out, with the differences from the usual. */
const FORMS: [name: string, url: string, expected: object][] = [
  [
    'Neon',
    'postgresql://u:p@ep-a-1.eu-central-1.aws.neon.tech/db?sslmode=require&channel_binding=require',
    { ...at('ep-a-1.eu-central-1.aws.neon.tech'), ...REQUIRE },
  ],
  [
    'Neon, for clients that send no server name',
    'postgres://u:p@ep-a-1.aws.neon.tech/db?sslmode=require&options=endpoint%3Dep-a-1',
    {
      ...at('ep-a-1.aws.neon.tech'),
      ...REQUIRE,
      startupParameters: { application_name: 'order-once', options: 'endpoint=ep-a-1' },
    },
  ],
  [
    'Supabase, its pooler',
    'postgres://postgres.abc:p@aws-0-eu-west-1.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1',
    {
      ...at('aws-0-eu-west-1.pooler.supabase.com', 6543),
      user: 'postgres.abc',
      database: 'postgres',
      usesPooler: true,
    },
  ],
  [
    'Supabase, as Vercel is given it',
    'postgres://u:p@x.pooler.supabase.com:5432/db?sslmode=require&supa=base-pooler.x',
    { ...at('x.pooler.supabase.com'), ...REQUIRE },
  ],
  [
    'RDS',
    'postgres://u:p@db.c1.eu-central-1.rds.amazonaws.com:5432/db?sslmode=verify-full',
    {
      ...at('db.c1.eu-central-1.rds.amazonaws.com'),
      tls: { ...USUAL.tls, mode: 'verify-full' },
    },
  ],
  [
    'Cloud SQL, the socket as a parameter',
    'postgres://u:p@/db?host=/cloudsql/project:region:instance',
    at('/cloudsql/project:region:instance'),
  ],
  ['Cloud SQL, the socket as host', 'postgres://u:p@%2Fcloudsql%2Fx/db', at('/cloudsql/x')],
  [
    'Cloud SQL, a host beside the socket',
    'postgresql://u:p@localhost/db?host=/cloudsql/x',
    at('/cloudsql/x'),
  ],
  [
    'Azure, a user with an @',
    'postgres://u%40server:p@server.postgres.database.azure.com:5432/db?sslmode=require',
    { ...at('server.postgres.database.azure.com'), ...REQUIRE, user: 'u@server' },
  ],
  [
    'Azure, the @ as it is',
    'postgres://u@server:p@server.postgres.database.azure.com/db',
    { ...at('server.postgres.database.azure.com'), user: 'u@server' },
  ],
  [
    'Heroku',
    'postgres://u:p@ec2-1-2-3-4.compute-1.amazonaws.com:5432/db',
    at('ec2-1-2-3-4.compute-1.amazonaws.com'),
  ],
  [
    'Prisma',
    'postgresql://u:p@h:5432/db?schema=public&connection_limit=5&pool_timeout=2&connect_timeout=15',
    at('h'),
  ],
  [
    'libpq, with parameters for its connections',
    'postgresql://u:p@h/db?keepalives=1&keepalives_idle=5&gssencmode=disable&target_session_attrs=read-write',
    at('h'),
  ],
  ['JDBC', 'postgres://u:p@h/db?ssl=true', { ...at('h'), ...REQUIRE }],
  [
    'a socket without user',
    'postgres:///db?host=/tmp',
    {
      ...at('/tmp'),
      user: userInfo().username,
      password: '',
    },
  ],
  ['a socket with a port', 'postgres://u:p@/db?host=/tmp&port=5433', at('/tmp', 5433)],
  ['a socket, the port beside the host', 'postgres://u:p@:5433/db?host=/tmp', at('/tmp', 5433)],
  ['an IPv6 address', 'postgres://u:p@[::1]:5433/db', at('::1', 5433)],
  ['an IPv6 address without port', 'postgres://u:p@[2001:db8::1]/db', at('2001:db8::1')],
  [
    'a password of reserved characters',
    'postgres://u:%25%2F%3F%23%40%3A%26%20%C3%A9@h/db',
    { ...at('h'), password: '%/?#@:& é' },
  ],
  ['a password with #, : and +', 'postgres://u:a#b:c+d@h/db', { ...at('h'), password: 'a#b:c+d' }],
  [
    'a database of reserved characters',
    'postgres://u:p@h/a%2Fb%40c',
    { ...at('h'), database: 'a/b@c' },
  ],
  ['no password', 'postgres://u@h/db', { ...at('h'), password: '' }],
  ['no database', 'postgres://u:p@h', { ...at('h'), database: 'u' }],
  ['no database but a slash', 'postgres://u:p@h/?keepalives=1', { ...at('h'), database: 'u' }],
  ['no host', 'postgres://u:p@/db', at('localhost')],
  [
    'credentials as parameters',
    'postgres://h/db?user=u&password=a+b',
    { ...at('h'), password: 'a+b' },
  ],
  [
    'a name for the connections',
    'postgres://u:p@h/db?application_name=shop',
    { ...at('h'), startupParameters: { application_name: 'shop' } },
  ],
  [
    'several hosts',
    'postgres://u:p@h1:5433,[::2],h3/db',
    {
      hosts: [
        { host: 'h1', port: 5433 },
        { host: '::2', port: 5432 },
        { host: 'h3', port: 5432 },
      ],
    },
  ],
  [
    'several hosts with one port',
    'postgres://u:p@/db?host=h1,h2&port=5433',
    {
      hosts: [
        { host: 'h1', port: 5433 },
        { host: 'h2', port: 5433 },
      ],
    },
  ],
]

const ENCODE = 'a / ? or @ of the user, password or database must be percent-encoded'
const ENCODE_COMMA =
  'a , of the user or password must be percent-encoded (%2C), and several hosts have one user, before the first'
const EMPTY_HOST = 'it must name a host before and after each comma'
const WHITE_SPACE = 'it has white space: remove it, or write %20 for a blank'

const REFUSED: [url: string, rule: string][] = [
  ['mysql://u:secret@h/db', 'it must begin with postgres://'],
  ['postgres://u:secret%@h/db', 'the password has a % that is not percent-encoded: write %25'],
  ['postgres://u:se%cret@h/db', 'the password has a % that is not percent-encoded: write %25'],
  // Two hexadecimal digits that are no UTF-8.
  ['postgres://u:secret%ab@h/db', 'the password has a % that is not percent-encoded: write %25'],
  ['postgres://u%:secret@h/db', 'the user has a % that is not percent-encoded: write %25'],
  ['postgres://u:secret@h/d%b', 'the database has a % that is not percent-encoded: write %25'],
  ['postgres://u:secret@%h/db', 'the host has a % that is not percent-encoded: write %25'],
  [
    'postgres://h/db?password=secret%',
    'a parameter has a % that is not percent-encoded: write %25',
  ],
  ['postgres://u:secret@h/db%00options%00x', 'the database must not have %00'],
  ['postgres://u:12/secret@h/db', ENCODE],
  ['postgres://u:12?secret@h/db', ENCODE],
  ['postgres://u:12@secret/x@h/db', ENCODE],
  ['postgres://u@127.0.0.1:1,u2@127.0.0.1:2/d', ENCODE_COMMA],
  ['postgres://h1:5432,u@h2/db', ENCODE_COMMA],
  ['postgres://u:secret,x@h/db', ENCODE_COMMA],
  ['postgres://,', EMPTY_HOST],
  ['postgres://u:secret@h1:5432,/db', EMPTY_HOST],
  ['postgres://u:secret@h1,:5433,h3/db', EMPTY_HOST],
  ['postgres://u:secret@/db?host=h1,', EMPTY_HOST],
  ['postgres://u:se cret@h/db', WHITE_SPACE],
  ['postgres://u:secret@h/db\n', WHITE_SPACE],
  ['postgres://u:secret@h/db?x=y', 'the parameter x is not known'],
  ['postgres://u:secret@h/db?search_path=x', 'the parameter search_path is not known'],
  ['postgres://u:secret@h/db?constructor=x', 'the parameter constructor is not known'],
  ['postgres://u:secret@h/db?a%0Ab=y', 'the parameter a%0Ab is not known'],
  ['postgres://u:secret@h/db?schema=shop', 'schema must be public'],
  ['postgres://u:secret@h/db?gssencmode=require', 'gssencmode must be disable or prefer'],
  ['postgres://u:secret@h/db?pgbouncer=yes', 'pgbouncer must be true or false'],
  ['postgres://u:secret@h:x/db', 'a port must be an integer from 1 to 65535'],
  ['postgres://u:secret@h:65536/db', 'a port must be an integer from 1 to 65535'],
  [
    'postgres://u:secret@::1/db',
    'a host must be a name, an address, or an IPv6 address in brackets',
  ],
  ['postgres://u:secret@h/db?port=1,2', 'it must have one port, or one for each host'],
  [
    'postgres://u:secret@h/db?sslmode=no-verify',
    'sslmode must be disable, allow, prefer, require, verify-ca or verify-full',
  ],
  ['postgres://u:secret@h/db?ssl=no-verify', 'ssl must be true; or use sslmode'],
  ['postgres://u:secret@h/db?sslmode=verify-ca', 'sslmode=verify-ca needs sslrootcert=<file>'],
  [
    'postgres://u:secret@h/db?sslmode=require&sslrootcert=system',
    'sslrootcert=system needs sslmode=verify-full',
  ],
  [
    'postgres://u:secret@h/db?sslrootcert=/ca.pem',
    'sslrootcert needs sslmode=verify-full (or require, or verify-ca)',
  ],
  [
    'postgres://u:secret@h/db?sslnegotiation=direct',
    'sslnegotiation=direct needs sslmode=require, verify-ca or verify-full',
  ],
  [
    'postgres://u:secret@h/db?sslmode=verify-full&sslrootcert=/dev/null',
    'the file /dev/null of sslrootcert is not a regular file',
  ],
  [
    'postgres://u:secret@h/db?sslmode=verify-full&sslrootcert=/no/ca.pem',
    'the file /no/ca.pem of sslrootcert cannot be read (ENOENT)',
  ],
  [
    `postgres://u:secret@h/db?sslmode=verify-full&sslrootcert=${import.meta.filename}`,
    `the file ${import.meta.filename} of sslrootcert has no PEM certificate`,
  ],
]

describe('the URL of a Postgres', () => {
  test.each(FORMS)('is understood in the form of %s', (_name, url, expected) => {
    expect(parseDatabaseUrl(url)).toEqual({ ...USUAL, ...expected })
  })

  test.each(REFUSED)('is refused in one line without the password: %s', (url, rule) => {
    const message = `DATABASE_URL: ${rule}`
    expect(() => parseDatabaseUrl(url)).toThrow(
      expect.objectContaining({ name: 'StartError', message }),
    )
    expect(message).not.toMatch(/secret|\n/)
  })

  test('gives back any user, password and database that are percent-encoded', () => {
    const text = fc.string({ unit: 'binary', minLength: 1 }).filter((text) => !text.includes('\0'))
    fc.assert(
      fc.property(text, text, text, (user, password, database) => {
        const [u, p, d] = [user, password, database].map(encodeURIComponent)
        expect(parseDatabaseUrl(`postgres://${u}:${p}@h/${d}`)).toMatchObject({
          ...{ user, password, database },
        })
      }),
    )
  })

  test('is understood or refused in one line, whatever follows postgres://', () => {
    const part = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom(...'@:/?#%[],&=+', '%2F', 'host', 'port', 'sslmode', 'options'),
    )
    fc.assert(
      fc.property(fc.array(part), (parts) => {
        try {
          expect(parseDatabaseUrl(`postgres://${parts.join('')}`).hosts.length).toBeGreaterThan(0)
        } catch (error) {
          expect(error).toMatchObject({ name: 'StartError' })
          expect(String(error)).not.toContain('\n')
        }
      }),
      { numRuns: 2_000 },
    )
  })
})
