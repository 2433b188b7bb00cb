/** Checks at the start that Redis accepts what is in `REDIS_URL`, and that the service may use it. */
import { defineKeyScript, type RunCall } from '@order-once/idempotency/batching'
import type { FastifyBaseLogger } from 'fastify'
import type { Redis } from 'ioredis'
import { getErrorCode } from '../error-code.ts'
import { StartError } from '../start-error.ts'
import { createRedisClient, getCommandName } from './redis.ts'
import { describeRedis, parseRedisUrl } from './redis-url.ts'

/** Long enough for a Redis in another zone; an absent one does not delay the start for long. */
const TIMEOUT_MS = 1_000

/** The oldest version with `HELLO` and with users; the scripts need nothing newer. */
const MIN_VERSION = 6

/** Commands of the first handshake: an error of them concerns the URL. */
const HANDSHAKE = ['hello', 'auth', 'select']

/** Names that no client can use: a key has no blank. One of each kind of key that the service writes. */
const CHECKED_KEYS = ['idemp:health check', 'order-once:rate-limit:health check']

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
 * Does what requests do: runs a script with all their commands on a key of each kind.
 *
 * @param runCall runs each call
 * @throws what Redis refuses
 */
export function createUseCheck(
  client: Redis,
  runCall: RunCall = (call) => call(),
): () => Promise<void> {
  const useKey = defineKeyScript(client, 'useKey', USE_KEY)
  return async () => {
    for (const key of CHECKED_KEYS) await runCall(() => useKey(key, CHECKED_KEY_MS))
  }
}

/**
 * Connects once. A Redis that does not respond, or does not allow what the service does, is a warning: the
 * service works without it.
 *
 * @throws {StartError} if Redis refuses the password, the database or TLS, or is too old
 */
export async function checkRedis(url: string, log: FastifyBaseLogger): Promise<void> {
  const at = describeRedis(url)
  let lastError: Error | undefined
  const client = createRedisClient(url, {
    ...{ lazyConnect: true, connectTimeout: TIMEOUT_MS, commandTimeout: TIMEOUT_MS },
    ...{ maxRetriesPerRequest: 0, retryStrategy: () => null },
  })
  client.on('error', (error) => {
    lastError ??= error
  })
  try {
    await client.connect()
    await checkVersion(client, at)
    await createUseCheck(client)()
  } catch (error) {
    if (error instanceof StartError) throw error
    const cause = lastError ?? (error instanceof Error ? error : new Error(String(error)))
    const reason =
      (cause.message || getErrorCode(cause)).replace(/\.?\s*$/, '') + suggestScheme(url, cause)
    if (concernsUrl(cause)) throw new StartError(`REDIS_URL: ${at} cannot be used: ${reason}`)
    const state = isReply(cause)
      ? `refuses what the service does (${reason}); docs/operations.md lists the rights it needs`
      : `does not respond (${reason})`
    log.warn(`REDIS_URL: ${at} ${state}; orders go on without Redis until this is fixed`)
  } finally {
    client.disconnect()
  }
}

async function checkVersion(client: Redis, at: string): Promise<void> {
  const hello = (await client.call('HELLO').catch((error: Error) => {
    if (/unknown command/i.test(error.message)) return ['version', '']
    throw error
  })) as unknown[]
  const version = String(hello[hello.indexOf('version') + 1])
  if (Number.parseInt(version, 10) >= MIN_VERSION) return
  throw new StartError(
    `${at} is too old (${version || 'no HELLO'}): use Redis ${MIN_VERSION} or later`,
  )
}

/** A server without TLS does not respond to a handshake; one with TLS closes a connection without it. */
function suggestScheme(url: string, { message }: Error): string {
  const { usesTls } = parseRedisUrl(url)
  const isOtherScheme = usesTls
    ? /ETIMEDOUT|wrong version number|before secure TLS connection/
    : /ECONNRESET|EPIPE|Connection is closed|Protocol error/
  if (!isOtherScheme.test(message)) return ''
  return `: does this port speak TLS? If ${usesTls ? 'not' : 'it does'}, use redis${usesTls ? '' : 's'}://`
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
