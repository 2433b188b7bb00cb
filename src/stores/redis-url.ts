/** The URL of a Redis. */
import { StartError } from '../start-error.ts'

/** All that a `REDIS_URL` says. */
interface RedisTarget {
  host: string
  port: number
  /** '': that of the server's default user */
  username: string
  /** '': none */
  password: string
  /** the number of the database */
  db: number
  /** whether the connection is encrypted, and the server's certificate checked */
  usesTls: boolean
}

const DEFAULT_PORT = '6379'

/**
 * Parses `redis://[user[:password]@]host[:port][/database]`, or `rediss://…` for TLS. What the client would
 * ignore silently is refused.
 *
 * @throws {StartError} one line that names the rule that is broken, never the password
 */
export function parseRedisUrl(text: string): RedisTarget {
  const url = splitUrl(text)
  if (url.hostname === '') throw broken('it must name a host')
  if (!/^\/?$|^\/\d{1,9}$/.test(url.pathname)) {
    throw broken('the database must be a number, as in redis://localhost:6379/1')
  }
  const [parameter] = url.searchParams.keys()
  if (parameter !== undefined) {
    throw broken(`the parameter ${encodeURIComponent(parameter)} is not known`)
  }
  return {
    // An IPv6 address is in brackets.
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: Number(url.port || DEFAULT_PORT),
    username: decode('the user', url.username),
    password: decode('the password', url.password),
    db: Number(url.pathname.slice(1)),
    usesTls: url.protocol === 'rediss:',
  }
}

/** Names a Redis without its credentials: "Redis at localhost:6379/1". */
export function describeRedis(url: string): string {
  const { host, port, db } = parseRedisUrl(url)
  const at = `${host.includes(':') ? `[${host}]` : host}:${port}`
  return `Redis at ${at}${db === 0 ? '' : `/${db}`}`
}

function splitUrl(text: string): URL {
  if (!/^rediss?:\/\//.test(text)) throw broken('it must begin with redis:// or rediss://')
  if (/\s/.test(text)) throw broken('it has white space: remove it, or write %20 for a blank')
  try {
    const url = new URL(text)
    if (url.hash === '') return url
  } catch {
    // It may be the user or the password that is not encoded.
  }
  throw broken(
    'it must be redis://user:password@host:port/database; a / ? # or @ of the user or password must be percent-encoded',
  )
}

function decode(what: string, text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw broken(`${what} has a % that is not percent-encoded: write %25`)
  }
}

const broken = (rule: string) => new StartError(`REDIS_URL: ${rule}`)
