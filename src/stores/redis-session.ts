/** Dedicated connections to Redis: for the clean-up, the reconciliation and the watch for failovers. */
import { getErrorCode } from '../error-code.ts'
import { createRedisClient, type RedisClient } from './redis-client.ts'
import { describeRedis } from './redis-url.ts'

/** More than for a request: a batch has many commands, and no client waits for it. */
const REDIS_TIMEOUT_MS = 5_000

/**
 * Connects, and does not connect again when the connection is lost.
 *
 * @throws if Redis does not respond or refuses the connection: an error that names it and the cause
 */
export async function connectToRedis(url: string): Promise<RedisClient> {
  const redis = createRedisClient(url, {
    lazyConnect: true,
    commandTimeout: REDIS_TIMEOUT_MS,
    connectTimeout: REDIS_TIMEOUT_MS,
    retryStrategy: () => null,
  })
  // The error of `connect` is always "Connection is closed". The events have the cause.
  let cause: Error | undefined
  for (const event of ['node error', 'error']) {
    redis.on(event, (error: Error) => {
      cause ??= error
    })
  }
  try {
    await redis.connect()
  } catch (error) {
    cause ??= error as Error
    const reason = cause.message || getErrorCode(cause)
    throw new Error(`${describeRedis(url)} cannot be used: ${reason}`, { cause })
  }
  return redis
}
