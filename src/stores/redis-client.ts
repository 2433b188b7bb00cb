/** Creates clients of Redis for each form of its URL. */
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import {
  type ClusterTarget,
  parseRedisUrl,
  type RedisNode,
  type SentinelTarget,
  type ServerTarget,
} from './redis-url.ts'

/** How many slots each cluster has. */
const SLOTS = 16_384

/** A client of one server, or of a cluster. */
export type RedisClient = Redis | Cluster

/** How long one sentinel, or one node that lists the slots, may take. After that, the next one is tried. */
const DISCOVERY_TIMEOUT_MS = 500

/**
 * How many redirections a call to a cluster follows. During a slot move it may be refused with MOVED and then
 * with ASK, and once more if the move ends at that moment.
 */
const MAX_REDIRECTIONS = 4

/** A redirection shows each change of a cluster that is in use; this finds those of an idle one. */
const SLOTS_REFRESH_INTERVAL_MS = 5_000

/** Those that all connections have. */
const COMMON_OPTIONS = {
  // It needs INFO, and the driver prints a warning if the user may not run it. A Redis that is still
  // loading its data refuses every call, which is enough.
  enableReadyCheck: false,
  // Redis 6 does not have the command for it.
  disableClientInfo: true,
} satisfies RedisOptions

/** What may differ between clients. */
type ClientOptions = Pick<
  RedisOptions,
  | 'autoResendUnfulfilledCommands'
  | 'commandTimeout'
  | 'connectTimeout'
  | 'disconnectTimeout'
  | 'enableOfflineQueue'
  | 'lazyConnect'
  | 'maxRetriesPerRequest'
  | 'retryStrategy'
  | 'socketTimeout'
>

/**
 * Creates a client of the driver. A connection on which Redis refuses the database of the URL is closed:
 * the driver would go on in database 0, which may be that of another service.
 *
 * @param url in one of the forms of `parseRedisUrl`
 * @param options in addition to those that all connections have; `retryStrategy` also holds for the sentinels
 * and for the cluster as a whole
 * @throws {StartError} if the URL breaks a rule
 */
export function createRedisClient(url: string, options: ClientOptions = {}): RedisClient {
  const target = parseRedisUrl(url)
  return target.kind === 'cluster'
    ? createClusterClient(target, options)
    : createServerClient(target, options)
}

/** Creates a client of one server: the one at the address, or the master that the sentinels name. */
export function createServerClient(
  target: ServerTarget | SentinelTarget,
  options: ClientOptions = {},
): Redis {
  const { username, password, db } = target
  const client = new Redis({
    ...COMMON_OPTIONS,
    ...{ username, password, db },
    ...(target.usesTls && { tls: {} }),
    ...(target.kind === 'server'
      ? { host: target.host, port: target.port }
      : getSentinelOptions(target, options)),
    ...options,
  })
  client.on('error', (error) => {
    if (isSelectError(error)) client.disconnect(true)
  })
  return client
}

/** Returns clients of the servers that have the keys: the masters of a cluster, or the one server. */
export const listMasters = (client: RedisClient): Redis[] =>
  client instanceof Cluster ? client.nodes('master') : [client]

/** Names the server of each slot of a cluster; `undefined` for a slot that none has. */
export const listSlotMasters = (cluster: Cluster): (string | undefined)[] =>
  Array.from({ length: SLOTS }, (_, slot) => cluster.slots[slot]?.[0])

/** Creates a client of one sentinel. */
export function createSentinelClient(
  target: SentinelTarget,
  { host, port }: RedisNode,
  options: ClientOptions = {},
): Redis {
  return new Redis({
    ...COMMON_OPTIONS,
    ...{ host, port, username: target.sentinelUsername, password: target.sentinelPassword },
    ...(target.usesTls && { tls: {} }),
    connectTimeout: DISCOVERY_TIMEOUT_MS,
    ...options,
  })
}

/** The driver tries one sentinel after the other, each time that it connects. */
function getSentinelOptions(
  target: SentinelTarget,
  { retryStrategy }: ClientOptions,
): Omit<RedisOptions, 'replyMapping'> {
  return {
    sentinels: target.sentinels,
    name: target.masterName,
    sentinelUsername: target.sentinelUsername,
    sentinelPassword: target.sentinelPassword,
    sentinelCommandTimeout: DISCOVERY_TIMEOUT_MS,
    ...(retryStrategy && { sentinelRetryStrategy: retryStrategy }),
    // Only those of the URL are used: others may have addresses that cannot be reached from here.
    updateSentinels: false,
    ...(target.usesTls && { enableTLSForSentinelMode: true, sentinelTLS: {} }),
  }
}

function createClusterClient(target: ClusterTarget, options: ClientOptions): Cluster {
  const { retryStrategy, lazyConnect = false, enableOfflineQueue: _, ...nodeOptions } = options
  const { username, password } = target
  const cluster = new Cluster(target.nodes, {
    redisOptions: {
      ...COMMON_OPTIONS,
      ...{ username, password },
      ...(target.usesTls && { tls: {} }),
      ...nodeOptions,
    },
    lazyConnect,
    ...(retryStrategy && { clusterRetryStrategy: retryStrategy }),
    // It needs another right. A cluster that is down refuses every call, which is enough.
    enableReadyCheck: false,
    // A name stays a name: the certificate of its server may have no address.
    dnsLookup: (host, callback) => callback(null, host),
    maxRedirections: MAX_REDIRECTIONS,
    slotsRefreshTimeout: DISCOVERY_TIMEOUT_MS,
    slotsRefreshInterval: SLOTS_REFRESH_INTERVAL_MS,
    // Redis may have run a command whose connection was lost: it is not sent again.
    retryDelayOnFailover: 0,
    retryDelayOnClusterDown: 0,
  })
  // Otherwise the first call to each shard would wait for its connection.
  cluster.on('+node', (node: Redis) => {
    if (!node.options.readOnly) node.connect().catch(() => {}) // reported as "node error"
  })
  return cluster
}

const isSelectError = (error: Error) => getCommandName(error) === 'select'

/** The command that an error of Redis belongs to; undefined for any other error. */
export function getCommandName(error: Error): string | undefined {
  return (error as Error & { command?: { name: string } }).command?.name
}
