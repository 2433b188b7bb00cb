import {
  BrokenCircuitError,
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  handleAll,
} from 'cockatiel'
import { Redis } from 'ioredis'
import type { Logger } from 'pino'
import { Lane } from '../batcher.ts'

/** Within these, a request goes on without Redis rather than wait for it. */
const CONNECT_TIMEOUT_MS = 500
const COMMAND_TIMEOUT_MS = 200
/** Often enough that Redis is back in use soon after it is back. */
const MAX_RECONNECT_DELAY_MS = 1_000

/** While one is answered the next one gathers: fewer, larger calls cost both sides less. */
const MAX_CALLS_ON_THE_WAY = 1

/** One lost command says little; so many in a row, without a success between them, say it is gone. */
const FAILURES_BEFORE_BREAK = 5
/** Then one request a second pays for asking whether it is back. */
const BREAK_MS = 1_000

/** A Redis that is allowed to fail. */
export interface RedisConnection {
  client: Redis
  /** on which calls for many requests go together */
  lane: Lane
  /**
   * Runs commands, unless so many failed lately that Redis is left alone for a moment.
   *
   * @throws at once while it is left alone; else what the commands throw, after `COMMAND_TIMEOUT_MS`
   * at the latest
   */
  ask<T>(commands: () => Promise<T>): Promise<T>
  /** How many times what was asked failed, those not counted that were never sent. */
  failedCalls(): number
  close(): Promise<void>
}

/**
 * Opens a connection that reconnects by itself, never sends a command twice, and logs one line when
 * Redis goes and one when it is back.
 *
 * @param url `redis://…` or `rediss://…`
 * @returns the connection, in use or being tried again
 */
export async function openRedis(url: string, log: Logger): Promise<RedisConnection> {
  const client = new Redis(url, {
    connectTimeout: CONNECT_TIMEOUT_MS,
    commandTimeout: COMMAND_TIMEOUT_MS,
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
  const tell = () => {
    const isUp = isConnected && breaker.state === CircuitState.Closed
    if (isUp === wasUp || client.status === 'end') return
    wasUp = isUp
    if (isUp) log.info('Redis is back')
    else log.warn({ err: lastError }, 'Redis does not answer; orders go on without it')
  }
  breaker.onStateChange(tell)
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
      tell()
      resolve()
    })
    client.on('close', () => {
      isConnected = false
      tell()
      resolve()
    })
  })

  return {
    client,
    lane: new Lane(MAX_CALLS_ON_THE_WAY),
    ask: (commands) => breaker.execute(commands),
    failedCalls: () => failedCalls,
    close: async () => {
      // QUIT is answered after the answers that are still being remembered.
      await client.quit().catch(() => client.disconnect())
    },
  }
}
