/** The URL of a Redis, of its sentinels, or of a Redis Cluster. */
import { StartError } from '../start-error.ts'

export interface RedisNode {
  host: string
  port: number
}

/** What all forms of a `REDIS_URL` say. */
interface Access {
  /** '': that of the server's default user */
  username: string
  /** '': none */
  password: string
  /** whether connections are encrypted, and the servers' certificates checked */
  usesTls: boolean
}

/** One server at one address. */
export interface ServerTarget extends Access, RedisNode {
  kind: 'server'
  /** the number of the database */
  db: number
}

/** A server whose address comes from sentinels: the master. */
export interface SentinelTarget extends Access {
  kind: 'sentinel'
  sentinels: RedisNode[]
  /** the name by which the sentinels call the master and its replicas */
  masterName: string
  db: number
  /** those of the sentinels, which are not those of the servers */
  sentinelUsername: string
  sentinelPassword: string
}

/** A Redis Cluster: the nodes lead to all others. */
export interface ClusterTarget extends Access {
  kind: 'cluster'
  nodes: RedisNode[]
}

export type RedisTarget = ServerTarget | SentinelTarget | ClusterTarget

const SERVER_PORT = 6379
const SENTINEL_PORT = 26379

/** How a URL of Redis begins. */
export const REDIS_SCHEME = /^(rediss?(?:\+sentinel|\+cluster)?):\/\//

/** The parameters of a URL with sentinels. */
const SENTINEL_PARAMETERS = ['sentinel_username', 'sentinel_password']

/** The characters that a sentinel allows in the name of a master. */
const MASTER_NAME = /^[\w.-]+$/

/**
 * Parses one of these forms, each also with `rediss` instead of `redis`, for TLS. What the client would
 * ignore silently is refused.
 *
 * - `redis://[user[:password]@]host[:port][/database]`
 * - `redis+sentinel://[user[:password]@]host[:port][,…]/<master>[/database]`, with the parameters
 *   `sentinel_username` and `sentinel_password`
 * - `redis+cluster://[user[:password]@]host[:port][,…]`
 *
 * @throws {StartError} one line that names the rule that is broken, never a password
 */
export function parseRedisUrl(text: string): RedisTarget {
  const { scheme, userInfo, hosts, path, parameters } = splitUrl(text)
  const usesTls = scheme.startsWith('rediss')
  const kind = scheme.split('+')[1]
  const [username = '', ...password] = userInfo.split(':')
  const access = {
    username: decode('the user', username),
    password: decode('the password', password.join(':')),
    usesTls,
  }
  const known = kind === 'sentinel' ? SENTINEL_PARAMETERS : []
  for (const parameter of parameters.keys()) {
    if (known.includes(parameter)) continue
    throw broken(`the parameter ${encodeURIComponent(parameter)} is not known`)
  }
  if (kind === 'sentinel') {
    const [masterName = '', ...database] = path.slice(1).split('/')
    if (!MASTER_NAME.test(masterName)) {
      throw broken(
        'it must name the master after the sentinels, as in redis+sentinel://s1:26379,s2:26379/mymaster',
      )
    }
    return {
      kind,
      ...access,
      sentinels: parseHosts(hosts, SENTINEL_PORT),
      masterName,
      db: parseDatabase(database.join('/'), 'redis+sentinel://s1:26379/mymaster/1'),
      sentinelUsername: parameters.get('sentinel_username') ?? '',
      sentinelPassword: parameters.get('sentinel_password') ?? '',
    }
  }
  if (kind === 'cluster') {
    if (path.length > 1) throw broken('a cluster has no numbered databases: remove what follows /')
    return { kind, ...access, nodes: parseHosts(hosts, SERVER_PORT) }
  }
  if (hosts.includes(',')) {
    throw broken('it names several hosts: begin it with redis+sentinel:// or redis+cluster://')
  }
  const [server] = parseHosts(hosts, SERVER_PORT) as [RedisNode]
  const db = parseDatabase(path.slice(1), 'redis://localhost:6379/1')
  return { kind: 'server', ...access, ...server, db }
}

/** Names a Redis without its credentials: "Redis at localhost:6379/1". */
export function describeRedis(target: string | RedisTarget): string {
  const parsed = typeof target === 'string' ? parseRedisUrl(target) : target
  if (parsed.kind === 'cluster') return `Redis Cluster at ${describeNodes(parsed.nodes)}`
  const database = parsed.db === 0 ? '' : `/${parsed.db}`
  if (parsed.kind === 'server') return `Redis at ${describeNode(parsed)}${database}`
  const { masterName, sentinels } = parsed
  return `Redis master ${masterName}${database} of the sentinels ${describeNodes(sentinels)}`
}

/** Names an address: "localhost:6379", "[::1]:6379". */
export const describeNode = ({ host, port }: RedisNode) =>
  `${host.includes(':') ? `[${host}]` : host}:${port}`

const describeNodes = (nodes: RedisNode[]) => nodes.map(describeNode).join(', ')

function splitUrl(text: string) {
  const [, scheme] = REDIS_SCHEME.exec(text) ?? []
  if (scheme === undefined) {
    throw broken(
      'it must begin with redis://, redis+sentinel:// or redis+cluster://, or with rediss for TLS',
    )
  }
  if (/\s/.test(text)) throw broken('it has white space: remove it, or write %20 for a blank')
  const parts = /^[^/]+:\/\/(?:([^@/?#]*)@)?([^@/?#]*)(\/[^?#@]*)?(\?[^#@]*)?$/.exec(text)
  if (parts === null) throw createEncodingError()
  const [, userInfo = '', hosts = '', path = '', query = ''] = parts
  decode('a parameter', query)
  // A + is a +, not a blank, as in the other parts of the URL.
  return {
    scheme,
    userInfo,
    hosts,
    path,
    parameters: new URLSearchParams(query.replaceAll('+', '%2B')),
  }
}

function parseHosts(hosts: string, defaultPort: number): RedisNode[] {
  return hosts.split(',').map((text) => {
    if (text === '') throw broken('it must name a host')
    const url = URL.canParse(`redis://${text}`) ? new URL(`redis://${text}`) : undefined
    if (!url?.hostname) {
      const [, name = ''] = /^(.+):[^:[\]]*$/.exec(text) ?? []
      if (name && URL.canParse(`redis://${name}`)) throw createPortError()
      throw createEncodingError()
    }
    // An IPv6 address is in brackets.
    const host = url.hostname.replace(/^\[(.*)\]$/, '$1')
    const port = Number(url.port || defaultPort)
    if (port === 0) throw createPortError()
    return { host, port }
  })
}

function parseDatabase(text: string, example: string): number {
  if (!/^\d{0,9}$/.test(text)) throw broken(`the database must be a number, as in ${example}`)
  return Number(text)
}

function decode(what: string, text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw broken(`${what} has a % that is not percent-encoded: write %25`)
  }
}

/** It is most likely the user or the password that is not encoded. */
const createEncodingError = () =>
  broken(
    'it must be redis://user:password@host:port/database; a / ? # or @ of the user or password must be percent-encoded',
  )

const createPortError = () => broken('a port must be an integer from 1 to 65535')

const broken = (rule: string) => new StartError(`REDIS_URL: ${rule}`)
