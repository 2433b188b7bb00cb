/** What all connections to Postgres have in common. */
import { DeadlineError } from '@order-once/idempotency/batching'
import postgres from 'postgres'
import { getErrorCode } from '../error-code.ts'
import { CONNECT_TIMEOUT_MS } from '../limits.ts'
import { toTlsOptions } from './postgres-tls.ts'
import { type DatabaseHost, type DatabaseTarget, parseDatabaseUrl } from './postgres-url.ts'

/** A short, constant delay: by default it grows to 20 s, and would outlast Postgres's absence. */
const RECONNECT_DELAY_SECONDS = 0.2

const CONNECTION_OPTIONS = {
  connect_timeout: CONNECT_TIMEOUT_MS / 1000,
  backoff: () => RECONNECT_DELAY_SECONDS,
  // By default the driver looks up array types on each new connection; when that connection is lost, the
  // rejection is unhandled and would end the process. No query here uses arrays.
  fetch_types: false,
  onnotice: () => {},
}

/**
 * The other options that the driver (3.4.9) would take from the environment, such as `PGMAX`. (Its types
 * do not have all of them.)
 */
const INDEPENDENT_OF_ENVIRONMENT = {
  max: 1,
  idle_timeout: undefined,
  max_lifetime: null,
  max_pipeline: 100,
  keep_alive: 60,
  sslnegotiation: null,
  debug: false,
  publications: 'alltables',
}

type DriverOptions = postgres.Options<Record<string, postgres.PostgresType>>

/**
 * Returns the driver's options for one host, with every option that the driver would otherwise take from
 * the environment. By default there is one connection, which lives until it is closed.
 */
export function toDriverOptions(
  { user, password, database, tls, usesPooler, startupParameters }: DatabaseTarget,
  { host, port }: DatabaseHost,
): DriverOptions {
  const path = socketPath({ host, port })
  return {
    ...INDEPENDENT_OF_ENVIRONMENT,
    ...CONNECTION_OPTIONS,
    ...(tls.isDirect && { sslnegotiation: 'direct' }),
    // An array, which the types lack: in a text, the driver takes what follows a colon for the port, and
    // an IPv6 address has colons.
    host: [host] as unknown as string,
    port: [port] as unknown as number,
    path,
    user,
    // A function: the driver would replace an empty text by `PGPASSWORD`.
    password: () => password,
    database,
    // As for libpq, a Unix socket has no TLS.
    ssl: path ? false : toTlsOptions(tls, host),
    prepare: !usesPooler,
    connection: startupParameters,
  }
}

/**
 * Creates a client of the driver, which connects to one host on demand.
 *
 * @param options in addition to those of `toDriverOptions`
 */
export function createClient(
  target: DatabaseTarget,
  host: DatabaseHost,
  options: DriverOptions = {},
): postgres.Sql {
  // No option overrides this variable, and the driver throws if it is `any`, the default of libpq.
  delete process.env.PGTARGETSESSIONATTRS
  return postgres({ ...toDriverOptions(target, host), ...options })
}

/** Whether nothing came back, not even an error of Postgres itself. */
export function isNoResponse(error: unknown): boolean {
  if (error instanceof postgres.PostgresError) return false
  return error instanceof DeadlineError || getErrorCode(error) !== ''
}

/** Whether the connection was lost during the query, as when a server restarts (SQLSTATE class 57P). */
export function isConnectionLost(error: unknown): boolean {
  if (error instanceof postgres.PostgresError) return error.code.startsWith('57P')
  return isNoResponse(error) && !(error instanceof DeadlineError)
}

/** Host, port and database of a URL. */
export function urlWithoutCredentials(url: string): string {
  const { hosts, database } = parseDatabaseUrl(url)
  return `${hosts.map(formatHost).join(',')}/${database}`
}

/** Host and port, or the path of a Unix socket. */
export function formatHost({ host, port }: DatabaseHost): string {
  return socketPath({ host, port }) ?? `${host.includes(':') ? `[${host}]` : host}:${port}`
}

function socketPath({ host, port }: DatabaseHost): string | undefined {
  return host.startsWith('/') ? `${host}/.s.PGSQL.${port}` : undefined
}
