/** The connection to Redis, which may fail: requests go on without it. */
import { ConcurrencyLimit, type RunCall, withDeadline } from '@order-once/idempotency/batching'
import {
  BrokenCircuitError,
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  handleAll,
} from 'cockatiel'
import type { FastifyBaseLogger } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { Redis } from 'ioredis'
import { REDIS_CLOSE_TIMEOUT_MS, REDIS_COMMAND_TIMEOUT_MS } from '../limits.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** undefined: the service runs without Redis */
    redis: RedisConnection | undefined
  }
}

const CONNECT_TIMEOUT_MS = 500
/** So that Redis is used again soon after it is back. */
const MAX_RECONNECT_DELAY_MS = 1_000

/** While one call is in flight the next one is collected: fewer, larger calls cost both sides less. */
const MAX_CALLS_IN_FLIGHT = 1

/** One lost call says little; so many in a row mean that Redis is gone. */
const FAILURES_BEFORE_BREAK = 5
/** Then one request a second tries whether it is back. */
const BREAK_MS = 1_000

export interface RedisConnection {
  client: Redis
  /** of the calls that many requests share */
  limit: ConcurrencyLimit
  /**
   * Runs a call through a circuit breaker.
   *
   * @throws at once while the circuit is open; else what the call throws, after
   * `REDIS_COMMAND_TIMEOUT_MS` at the latest
   */
  runCall: RunCall
  /** How many calls failed, those not counted that were never sent. */
  failedCalls(): number
  close(): Promise<void>
}

/**
 * Opens a connection that reconnects by itself, never sends a command twice, and logs one line when
 * Redis is lost and one when it is back.
 *
 * @param url `redis://…` or `rediss://…`
 * @returns the connection, ready or retrying
 */
export async function openRedis(url: string, log: FastifyBaseLogger): Promise<RedisConnection> {
  const client = new Redis(url, {
    connectTimeout: CONNECT_TIMEOUT_MS,
    commandTimeout: REDIS_COMMAND_TIMEOUT_MS,
    maxRetriesPerRequest: 1,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    retryStrategy: (attempt) => Math.min(attempt * 50, MAX_RECONNECT_DELAY_MS),
  })
  const breaker = circuitBreaker(handleAll, {
    halfOpenAfter: BREAK_MS,
    breaker: new ConsecutiveBreaker(FAILURES_BEFORE_BREAK),
  })

  let lastError: Error | undefined
  let isConnected = true
  let wasUp = true
  let failedCalls = 0
  const logStateChange = () => {
    const isUp = isConnected && breaker.state === CircuitState.Closed
    if (isUp === wasUp || client.status === 'end') return
    wasUp = isUp
    if (isUp) log.info('Redis is back')
    else log.warn({ err: lastError }, 'Redis does not respond; orders go on without it')
  }
  breaker.onStateChange(logStateChange)
  breaker.onFailure(({ reason }) => {
    if (!('error' in reason) || reason.error instanceof BrokenCircuitError) return
    lastError = reason.error
    failedCalls++
  })

  await new Promise<void>((resolve) => {
    client.on('error', (error) => {
      lastError = error
    })
    client.on('ready', () => {
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
    limit: new ConcurrencyLimit(MAX_CALLS_IN_FLIGHT),
    runCall: (call) => breaker.execute(call),
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
