/** The URL of a Postgres, in the forms that managed services hand out. */
import { userInfo } from 'node:os'
import { parse } from 'pg-connection-string'
import { StartError } from '../start-error.ts'
import { parseTls, TLS_PARAMETERS, type Tls } from './postgres-tls.ts'

/** Where one server listens. */
export interface DatabaseHost {
  /** a name, an address, or the folder of a Unix socket, which begins with `/` */
  host: string
  port: number
}

/** All that a `DATABASE_URL` says. */
export interface DatabaseTarget {
  hosts: [DatabaseHost, ...DatabaseHost[]]
  user: string
  /** '': none */
  password: string
  database: string
  tls: Tls
  /** whether a pooler stands in between that keeps no prepared statements (`pgbouncer=true`) */
  usesPooler: boolean
  /** what the server is given when a connection starts */
  startupParameters: { application_name: string; options?: string }
}

const DEFAULT_PORT = '5432'
const DEFAULT_APPLICATION_NAME = 'order-once'

const HONOURED = [
  ...['host', 'port', 'user', 'password', 'dbname', 'application_name', 'options'],
  ...TLS_PARAMETERS,
]

/** Parameters of libpq, Prisma and Supabase that change nothing here. */
const DROPPED = [
  // The driver has no channel binding; sslmode=verify-full protects against the same attack.
  'channel_binding',
  // The driver sends keep-alives, and the service's own deadlines are shorter.
  ...['keepalives', 'keepalives_idle', 'keepalives_interval', 'keepalives_count'],
  ...['tcp_user_timeout', 'connect_timeout', 'socket_timeout'],
  // The service writes, so it needs the primary in any case.
  ...['target_session_attrs', 'load_balance_hosts'],
  // The service's connections have its own name.
  'fallback_application_name',
  // As libpq does by default: the server's name is sent, and nothing is compressed.
  ...['sslsni', 'sslcompression'],
  // The service's pool has a fixed size and its own deadlines.
  ...['connection_limit', 'pool_timeout'],
  // Supabase's integration with Vercel adds it; Postgres has no such parameter.
  'supa',
]

/** Parameters that may have these values only. */
const FIXED = new Map([
  // The driver has no GSSAPI encryption.
  ['gssencmode', ['disable', 'prefer']],
  // The driver speaks UTF-8.
  ['client_encoding', ['utf8', 'UTF8', 'utf-8', 'UTF-8', 'auto']],
  // Prisma's; the tables are in `public`.
  ['schema', ['public']],
  // Prisma's; Supabase hands it out.
  ['pgbouncer', ['true', 'false']],
])

/** Credentials, up to the last `@` before the first `/` or `?`; hosts, database and parameters have none. */
const FORM =
  /^postgres(?:ql)?:\/\/(?:(?<credentials>[^/?\s]*)@)?(?<hosts>[^/?@\s]*)(?:\/(?<database>[^?@\s]*))?(?:\?(?<query>[^@\s]*))?$/

/**
 * Parses a URL as libpq does: several hosts, Unix sockets, hosts and credentials as parameters. A
 * parameter that would be ignored silently, or would reach the server unchecked, is refused by name.
 *
 * @throws {StartError} one line that names the rule that is broken, never the password
 */
export function parseDatabaseUrl(url: string): DatabaseTarget {
  // As for libpq, # has no meaning.
  const { credentials, hosts, database, query } = splitUrl(url.replaceAll('#', '%23'))
  // As for libpq, + is no space, and the last of several parameters of one name wins.
  const given = new Map(new URLSearchParams(query.replaceAll('+', '%2B')))
  const parameters = new URLSearchParams([...given])
  checkParameters(parameters)
  const tls = parseTls(parameters)
  // The parser would read files and print warnings of its own.
  for (const name of TLS_PARAMETERS) parameters.delete(name)
  const members = parse(`postgres://${credentials}@/?${parameters}`)
  const user = members.user || readSystemUser()
  return {
    hosts: parseHosts(hosts, members.host ?? '', members.port ?? ''),
    user,
    password: members.password ?? '',
    database: given.get('dbname') || decodeURIComponent(database) || user,
    tls,
    usesPooler: members.pgbouncer === 'true',
    startupParameters: {
      application_name: members.application_name || DEFAULT_APPLICATION_NAME,
      ...(members.options && { options: members.options }),
    },
  }
}

function splitUrl(url: string) {
  if (!/^postgres(ql)?:\/\//.test(url)) throw broken('it must begin with postgres://')
  if (/\s/.test(url)) throw broken('it has white space: remove it, or write %20 for a blank')
  const parts = FORM.exec(url)?.groups
  if (!parts) throw broken('a / ? or @ of the user, password or database must be percent-encoded')
  const { credentials = '', hosts = '', database = '', query = '' } = parts
  // Most likely it is between two hosts: the first would silently be part of the user or the password.
  if (credentials.includes(',')) {
    throw broken(
      'a , of the user or password must be percent-encoded (%2C), and several hosts have one user, before the first',
    )
  }
  const [user = '', ...password] = credentials.split(':')
  checkEncoding('the user', user)
  checkEncoding('the password', password.join(':'))
  checkEncoding('the host', hosts)
  checkEncoding('the database', database)
  checkEncoding('a parameter', query)
  return { credentials, hosts, database, query }
}

function checkEncoding(what: string, text: string): void {
  let decoded: string
  try {
    decoded = decodeURIComponent(text)
  } catch {
    throw broken(`${what} has a % that is not percent-encoded: write %25`)
  }
  // In what is sent to the server, it would begin another parameter.
  if (decoded.includes('\0')) throw broken(`${what} must not have %00`)
}

function checkParameters(parameters: URLSearchParams): void {
  for (const [name, value] of parameters) {
    const values = FIXED.get(name)
    if (values && !values.includes(value)) throw broken(`${name} must be ${values.join(' or ')}`)
    if (!values && !HONOURED.includes(name) && !DROPPED.includes(name)) {
      throw broken(`the parameter ${encodeURIComponent(name)} is not known`)
    }
  }
}

/** The hosts of the URL itself; the parameters `host` and `port`, '' if there are none, win. */
function parseHosts(text: string, host: string, port: string): DatabaseTarget['hosts'] {
  const given = text.split(',').map(splitHost)
  const names = host ? host.split(',') : given.map(({ host }) => host)
  const ports = port ? port.split(',') : given.map(({ port }) => port)
  if (ports.length > 1 && ports.length !== names.length) {
    throw broken('it must have one port, or one for each host')
  }
  if (names.length > 1 && names.includes('')) {
    throw broken('it must name a host before and after each comma')
  }
  const hosts = names.map((name, index) => ({
    host: name || 'localhost',
    port: parsePort(ports[ports.length > 1 ? index : 0] || DEFAULT_PORT),
  }))
  return hosts as DatabaseTarget['hosts'] // `split` returns at least one part
}

function splitHost(text: string) {
  // An IPv6 address is in brackets.
  const match = /^(?:\[([^[\]]*)\]|([^:[\]]*))(?::([^:]*))?$/.exec(text)
  if (!match) throw broken('a host must be a name, an address, or an IPv6 address in brackets')
  const [, address, name = '', port = ''] = match
  return { host: decodeURIComponent(address ?? name), port }
}

function parsePort(text: string): number {
  const port = Number(text)
  if (/^\d+$/.test(text) && port >= 1 && port <= 65_535) return port
  throw broken('a port must be an integer from 1 to 65535')
}

function readSystemUser(): string {
  try {
    return userInfo().username
  } catch {
    throw broken('it must name a user: this system has no name for that of the process')
  }
}

const broken = (rule: string) => new StartError(`DATABASE_URL: ${rule}`)
