/** The connection to Redis, which may fail: requests go on without it. */
import { ConcurrencyLimit, type RunCall, withDeadline } from '@order-once/idempotency/batching'
import type { FastifyBaseLogger } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { Cluster, Redis } from 'ioredis'
import { REDIS_CLOSE_TIMEOUT_MS, REDIS_COMMAND_TIMEOUT_MS } from '../limits.ts'
import { createCircuitBreaker } from './circuit-breaker.ts'
import { createRedisClient, type RedisClient } from './redis-client.ts'
import { parseRedisUrl } from './redis-url.ts'
import { leaveDemotedMaster } from './sentinel-watch.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** undefined: the service runs without Redis */
    redis: RedisConnection | undefined
  }
}

/** A hundred times what it takes in one network. Orders go on without Redis meanwhile. */
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
  client: RedisClient
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
 * Opens a connection that reconnects by itself, never sends a command twice, and logs one line when
 * Redis is lost and one when it is back.
 *
 * @param url in one of the forms of `parseRedisUrl`
 * @returns the connection, ready or retrying
 */
export async function openRedis(url: string, log: FastifyBaseLogger): Promise<RedisConnection> {
  const client = createRedisClient(url, {
    connectTimeout: CONNECT_TIMEOUT_MS,
    commandTimeout: SILENT_CONNECTION_TIMEOUT_MS, // of those that are not run by `runCall`
    socketTimeout: SILENT_CONNECTION_TIMEOUT_MS,
    disconnectTimeout: REDIS_COMMAND_TIMEOUT_MS, // of a server that does not close its side
    maxRetriesPerRequest: 1,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    retryStrategy: (attempt) => Math.min(attempt * 50, MAX_RECONNECT_DELAY_MS),
  })
  let lastError: Error | undefined
  let isConnected = false
  let isReplica = false
  let isClosing = false
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
    if (isClosing) return
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
        withDeadline(sendCall(call), REDIS_COMMAND_TIMEOUT_MS, 'Redis did not respond'),
      )
    } finally {
      callsInFlight--
    }
  }

  /** A client of a cluster would keep the call until it is connected again. */
  const sendCall = <T>(call: () => Promise<T>): Promise<T> =>
    client instanceof Cluster && client.status !== 'ready'
      ? Promise.reject(new Error(NOT_CONNECTED))
      : call()

  const target = parseRedisUrl(url)
  const stopWatching =
    target.kind === 'sentinel' && client instanceof Redis
      ? leaveDemotedMaster(client, target)
      : () => {}

  await new Promise<void>((resolve) => {
    client.on('error', (error) => {
      // That of a cluster only says that no node responds: the error of the node says why.
      lastError = client instanceof Cluster ? (lastError ?? error) : error
      logStateChange()
      resolve()
    })
    client.on('node error', (error: Error) => {
      lastError = error
    })
    client.on('ready', () => {
      // closed because Redis refused its database
      if (client instanceof Redis && !client.stream.writable) return
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
      isClosing = true
      stopWatching()
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
