/** The connection to Redis, which may fail: requests go on without it. */
import { ConcurrencyLimit, type RunCall, withDeadline } from '@order-once/idempotency/batching'
import type { FastifyBaseLogger } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { Redis, type RedisOptions } from 'ioredis'
import { REDIS_CLOSE_TIMEOUT_MS, REDIS_COMMAND_TIMEOUT_MS } from '../limits.ts'
import { createCircuitBreaker } from './circuit-breaker.ts'
import { parseRedisUrl } from './redis-url.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** undefined: the service runs without Redis */
    redis: RedisConnection | undefined
  }
}

const CONNECT_TIMEOUT_MS = 500
/** So that Redis is used again soon after it is back. */
const MAX_RECONNECT_DELAY_MS = 1_000

/**
 * A connection that responds to nothing for so long is replaced: its host may be gone without having closed
 * it. By then the circuit is open, so that the log has one line.
 */
const SILENT_CONNECTION_TIMEOUT_MS = 1_500

/** While one batch is in flight the next one is collected: fewer, larger ones cost both sides less. */
const MAX_BATCHES_IN_FLIGHT = 1

/** What the driver reports of commands while there is no connection: not the cause. */
const NOT_CONNECTED = "Stream isn't writeable"

/** While Redis is lost, another cause of it is logged at most so often. */
const CAUSE_INTERVAL_MS = 60_000

/** What Redis processes in a few ms. Beyond it, a call fails at once. */
const MAX_CALLS_IN_FLIGHT = 1_000

export interface RedisConnection {
  client: Redis
  /** of the calls that many requests share */
  limit: ConcurrencyLimit
  /**
   * Runs a call through a circuit breaker.
   *
   * @throws at once while the circuit is open or `MAX_CALLS_IN_FLIGHT` calls are in flight; else what the
   * call throws, after `REDIS_COMMAND_TIMEOUT_MS` at the latest
   */
  runCall: RunCall
  /** How many calls failed, or took too long; those not counted that the open circuit refused. */
  failedCalls(): number
  close(): Promise<void>
}

/**
 * Creates a client of the driver. A connection on which Redis refuses the database of the URL is closed:
 * the driver would go on in database 0, which may be that of another service.
 *
 * @param url `redis://…` or `rediss://…`
 * @param options in addition to those that all connections have
 * @throws {StartError} if the URL breaks a rule
 */
export function createRedisClient(
  url: string,
  options: Omit<RedisOptions, 'replyMapping'> = {},
): Redis {
  const { host, port, username, password, db, usesTls } = parseRedisUrl(url)
  const client = new Redis({
    ...{ host, port, username, password, db },
    ...(usesTls && { tls: {} }),
    // It needs INFO, and the driver prints a warning if the user may not run it. A Redis that is still
    // loading its data refuses every call, which is enough.
    enableReadyCheck: false,
    // Redis 6 does not have the command for it.
    disableClientInfo: true,
    ...options,
  })
  client.on('error', (error) => {
    if (isSelectError(error)) client.disconnect(true)
  })
  return client
}

const isSelectError = (error: Error) => getCommandName(error) === 'select'

/** The command that an error of Redis belongs to; undefined for any other error. */
export function getCommandName(error: Error): string | undefined {
  return (error as Error & { command?: { name: string } }).command?.name
}

/**
 * Opens a connection that reconnects by itself, never sends a command twice, and logs one line when
 * Redis is lost and one when it is back.
 *
 * @param url `redis://…` or `rediss://…`
 * @returns the connection, ready or retrying
 */
export async function openRedis(url: string, log: FastifyBaseLogger): Promise<RedisConnection> {
  const client = createRedisClient(url, {
    connectTimeout: CONNECT_TIMEOUT_MS,
    commandTimeout: SILENT_CONNECTION_TIMEOUT_MS, // of those that are not run by `runCall`
    socketTimeout: SILENT_CONNECTION_TIMEOUT_MS,
    maxRetriesPerRequest: 1,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    retryStrategy: (attempt) => Math.min(attempt * 50, MAX_RECONNECT_DELAY_MS),
  })
  let lastError: Error | undefined
  let isConnected = true
  let isReplica = false
  let wasUp = true
  let loggedCause: string | undefined
  let loggedAt = 0
  let failedCalls = 0
  let callsInFlight = 0

  const breaker = createCircuitBreaker((error) => {
    if (error) {
      if (!error.message.startsWith(NOT_CONNECTED)) lastError = error
      failedCalls++
    }
    // It was demoted to a replica: a new connection may lead to the primary, as the next success shows.
    if (error?.message.startsWith('READONLY')) {
      isReplica = true
      client.disconnect(true)
    } else if (!error) isReplica = false
    logStateChange()
  })

  function logStateChange(): void {
    const isUp = isConnected && !isReplica && !breaker.isOpen()
    if (client.status === 'end') return
    if (isUp) {
      if (!wasUp) log.info('Redis is back')
      lastError = undefined
    } else {
      const isOtherCause =
        lastError?.message !== loggedCause && performance.now() - loggedAt > CAUSE_INTERVAL_MS
      if (wasUp || isOtherCause) {
        log.warn({ err: lastError }, 'Redis does not respond; orders go on without it')
        loggedCause = lastError?.message
        loggedAt = performance.now()
      }
    }
    wasUp = isUp
  }

  async function runCall<T>(call: () => Promise<T>): Promise<T> {
    if (callsInFlight >= MAX_CALLS_IN_FLIGHT)
      throw new Error('too many calls to Redis are in flight')
    callsInFlight++
    try {
      return await breaker.run(() =>
        withDeadline(call(), REDIS_COMMAND_TIMEOUT_MS, 'Redis did not respond'),
      )
    } finally {
      callsInFlight--
    }
  }

  await new Promise<void>((resolve) => {
    client.on('error', (error) => {
      lastError = error
      logStateChange()
    })
    client.on('ready', () => {
      if (!client.stream.writable) return // closed because Redis refused its database
      isConnected = true
      logStateChange()
      resolve()
    })
    client.on('close', () => {
      isConnected = false
      logStateChange()
      resolve()
    })
  })

  return {
    client,
    limit: new ConcurrencyLimit(MAX_BATCHES_IN_FLIGHT),
    runCall,
    failedCalls: () => failedCalls,
    close: async () => {
      // QUIT is processed after the responses that are still being stored.
      const quit = withDeadline(client.quit(), REDIS_CLOSE_TIMEOUT_MS, 'Redis did not respond')
      await quit.catch(() => client.disconnect())
    },
  }
}

/** Decorates the app with `redis`, if the service has one; it closes with the app. */
export const redisConnection = fastifyPlugin(
  async (app) => {
    const { redisUrl } = app.stores
    const redis = redisUrl === undefined ? undefined : await openRedis(redisUrl, app.log)
    app.decorate('redis', redis)
    if (redis) app.addHook('onClose', () => redis.close())
  },
  { name: 'redis', dependencies: ['stores'] },
)
