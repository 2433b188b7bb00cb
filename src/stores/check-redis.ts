/** Checks at the start that Redis accepts what is in `REDIS_URL`, and that the service may use it. */
import { defineKeyScript, type RunCall } from '@order-once/idempotency/batching'
import type { FastifyBaseLogger } from 'fastify'
import { Cluster, Command, type Redis } from 'ioredis'
import { getErrorCode } from '../error-code.ts'
import { StartError } from '../start-error.ts'
import {
  createRedisClient,
  createSentinelClient,
  createServerClient,
  getCommandName,
  type RedisClient,
} from './redis-client.ts'
import {
  type ClusterTarget,
  describeNode,
  describeRedis,
  parseRedisUrl,
  type RedisTarget,
  type SentinelTarget,
  type ServerTarget,
} from './redis-url.ts'

/** Long enough for a Redis in another zone; an absent one does not delay the start for long. */
const TIMEOUT_MS = 1_000

/** The oldest version with `HELLO` and with users; the scripts need nothing newer. */
const MIN_VERSION = 6

/** Commands of the first handshake: an error of them concerns the URL. */
const HANDSHAKE = ['hello', 'auth', 'select']

/** How the names of checked records begin. No client can use them: a key has no blank. */
export const CHECKED_RECORD = 'idemp:health check'

/** One of each kind of key that the service writes. */
const CHECKED_KEYS = [CHECKED_RECORD, 'order-once:rate-limit:health check']

/** Enough to find a key for each shard with one slot in a hundred or more. */
const MAX_KEYS_PER_SEARCH = 1_000

/** How long a checked key lives: it is not left behind. */
const CHECKED_KEY_MS = 1_000

/**
 * Runs each command of the service's scripts but PUBLISH, which is optional; names the first that fails. A full
 * Redis refuses only the first write of a script: it must be one that needs memory.
 */
const USE_KEY = `
local commands = { 'SET', 'GET', 'DEL', 'INCR', 'PEXPIRE', 'PTTL' }
local replies = {
  redis.pcall('SET', KEYS[1], '1', 'PX', ARGV[1]),
  redis.pcall('GET', KEYS[1]),
  redis.pcall('DEL', KEYS[1]),
  redis.pcall('INCR', KEYS[1]),
  redis.pcall('PEXPIRE', KEYS[1], ARGV[1]),
  redis.pcall('PTTL', KEYS[1]),
}
for i, reply in ipairs(replies) do
  if type(reply) == 'table' and reply.err then
    return redis.error_reply(reply.err .. ' (' .. commands[i] .. ')')
  end
end
return 1`

/**
 * Does what requests do: runs a script with all their commands on a key of each kind, and on a key of each
 * shard of a cluster.
 *
 * @param runCall runs each call
 * @throws what Redis refuses
 */
export function createUseCheck(
  client: RedisClient,
  runCall: RunCall = (call) => call(),
): () => Promise<void> {
  const useKey = defineKeyScript(client, 'useKey', USE_KEY)
  return async () => {
    const keys = client instanceof Cluster ? listKeysOfShards(client) : []
    for (const key of [...CHECKED_KEYS, ...keys]) await runCall(() => useKey(key, CHECKED_KEY_MS))
  }
}

/** Finds a key for each shard that has none of `CHECKED_KEYS`. */
function listKeysOfShards({ slots }: Cluster): string[] {
  const getShard = (key: string) => slots[new Command('get', [key]).getSlot() ?? 0]?.[0]
  const missing = new Set(slots.map(([master]) => master))
  for (const key of CHECKED_KEYS) missing.delete(getShard(key))
  const keys: string[] = []
  for (let i = 0; missing.size > 0 && i < MAX_KEYS_PER_SEARCH; i++) {
    const key = `${CHECKED_RECORD} ${i}`
    if (missing.delete(getShard(key))) keys.push(key)
  }
  return keys
}

/** Of a client that is used once. */
const ONCE = {
  ...{ lazyConnect: true, connectTimeout: TIMEOUT_MS, commandTimeout: TIMEOUT_MS },
  ...{ maxRetriesPerRequest: 0, retryStrategy: () => null },
}

/** A server, sentinel or cluster that cannot be used, and why. */
class CheckError extends Error {
  readonly at: string
  override readonly cause: Error

  constructor(at: string, cause: Error) {
    super(cause.message)
    this.at = at
    this.cause = cause
  }
}

/**
 * Connects once. A Redis that does not respond, or does not allow what the service does, is a warning: the
 * service works without it.
 *
 * @throws {StartError} if Redis or a sentinel refuses the password, the database or TLS, is too old, or is not
 * what the URL says
 */
export async function checkRedis(url: string, log: FastifyBaseLogger): Promise<void> {
  const target = parseRedisUrl(url)
  try {
    if (target.kind === 'server') await checkServer(target, describeRedis(target))
    else if (target.kind === 'sentinel') await checkMaster(target)
    else await checkCluster(target, url)
  } catch (error) {
    if (!(error instanceof CheckError)) throw error
    const { at, cause } = error
    const reason =
      (cause.message || getErrorCode(cause)).replace(/\.?\s*$/, '') + suggestScheme(target, cause)
    if (concernsUrl(cause)) throw new StartError(`REDIS_URL: ${at} cannot be used: ${reason}`)
    const state = isReply(cause)
      ? `refuses what the service does (${reason}); docs/operations.md lists the rights it needs`
      : `does not respond (${reason})`
    log.warn(`REDIS_URL: ${at} ${state}; orders go on without Redis until this is fixed`)
  }
}

async function checkServer(target: ServerTarget, at: string): Promise<void> {
  await withClient(createServerClient(target, ONCE), at, async (client) => {
    await checkServerInfo(client, at, 'standalone')
    await createUseCheck(client)()
  })
}

/** Finds the master as the driver does, which does not report why a sentinel is of no use. */
async function checkMaster(target: SentinelTarget): Promise<void> {
  const { masterName, sentinels } = target
  const [host, port] = await useFirst(sentinels, async (sentinel) => {
    const at = `the sentinel at ${describeNode(sentinel)}`
    return withClient(createSentinelClient(target, sentinel, ONCE), at, async (client) => {
      await checkServerInfo(client, at, 'sentinel')
      const address = await client.call('SENTINEL', 'get-master-addr-by-name', masterName)
      if (address === null) {
        throw new StartError(`REDIS_URL: ${at} knows no master ${masterName}`)
      }
      return address as [string, string]
    })
  })
  const server: ServerTarget = { ...target, kind: 'server', host, port: Number(port) }
  await checkServer(server, `${describeRedis(server)}, the master ${masterName},`)
}

async function checkCluster(target: ClusterTarget, url: string): Promise<void> {
  await useFirst(target.nodes, async (node) => {
    const server: ServerTarget = { ...target, kind: 'server', ...node, db: 0 }
    const at = describeRedis(server)
    await withClient(createServerClient(server, ONCE), at, (client) =>
      checkServerInfo(client, at, 'cluster'),
    )
  })
  await withClient(createRedisClient(url, ONCE), describeRedis(target), (client) =>
    createUseCheck(client)(),
  )
}

/**
 * Returns the first result; else throws the error that says most: one that concerns the URL.
 *
 * @throws {StartError | CheckError}
 */
async function useFirst<Item, Result>(
  items: Item[],
  use: (item: Item) => Promise<Result>,
): Promise<Result> {
  const errors: unknown[] = []
  for (const item of items) {
    try {
      return await use(item)
    } catch (error) {
      errors.push(error)
    }
  }
  const isDecisive = (error: unknown) =>
    error instanceof StartError || (error instanceof CheckError && concernsUrl(error.cause))
  throw errors.find(isDecisive) ?? errors[0]
}

/** Connects a client, uses it, and disconnects it. @throws {StartError | CheckError} */
async function withClient<Client extends RedisClient, Result>(
  client: Client,
  at: string,
  use: (client: Client) => Promise<Result>,
): Promise<Result> {
  let cause: Error | undefined
  const recordCause = (error: Error) => {
    cause ??= error
  }
  client.on('error', recordCause)
  client.on('node error', recordCause)
  try {
    await client.connect()
    return await use(client)
  } catch (error) {
    if (error instanceof StartError) throw error
    throw new CheckError(at, cause ?? (error instanceof Error ? error : new Error(String(error))))
  } finally {
    client.disconnect()
  }
}

/** How each kind of server is addressed. */
const SCHEMES: Record<string, string> = {
  standalone: 'redis://',
  sentinel: 'redis+sentinel://',
  cluster: 'redis+cluster://',
}

/** @throws {StartError} if the server is too old, or of another kind than the URL says */
async function checkServerInfo(
  client: Redis,
  at: string,
  expectedMode: 'standalone' | 'sentinel' | 'cluster',
): Promise<void> {
  const hello = (await client.call('HELLO').catch((error: Error) => {
    if (/unknown command/i.test(error.message)) return ['version', '']
    throw error
  })) as unknown[]
  const version = String(hello[hello.indexOf('version') + 1])
  if (!(Number.parseInt(version, 10) >= MIN_VERSION)) {
    throw new StartError(
      `${at} is too old (${version || 'no HELLO'}): use Redis ${MIN_VERSION} or later`,
    )
  }
  const mode = String(hello[hello.indexOf('mode') + 1])
  if (mode === expectedMode) return
  throw new StartError(
    `REDIS_URL: ${at} is in the mode ${mode}: begin the URL with ${SCHEMES[mode] ?? 'another scheme'}`,
  )
}

/** A server without TLS does not respond to a handshake; one with TLS closes a connection without it. */
function suggestScheme({ kind, usesTls }: RedisTarget, { message }: Error): string {
  const isOtherScheme = usesTls
    ? /ETIMEDOUT|wrong version number|before secure TLS connection/
    : /ECONNRESET|EPIPE|Connection is closed|Protocol error/
  if (!isOtherScheme.test(message)) return ''
  const scheme = `redis${usesTls ? '' : 's'}${kind === 'server' ? '' : `+${kind}`}://`
  return `: does this port speak TLS? If ${usesTls ? 'not' : 'it does'}, use ${scheme}`
}

const isReply = (error: Error) => error.name === 'ReplyError'

/** Whether the server refuses the credentials, the database or TLS: trying again does not help. */
function concernsUrl(error: Error): boolean {
  if (isReply(error)) {
    const command = getCommandName(error)
    const isTransient = /^(LOADING|ERR max number of clients)/.test(error.message)
    return (
      /^(NOAUTH|WRONGPASS)/.test(error.message) ||
      (HANDSHAKE.includes(`${command}`) && !isTransient)
    )
  }
  // Errors of the network have a system call, errors of TLS do not.
  return getErrorCode(error) !== '' && !('syscall' in error)
}
