/** Dedicated connections to Redis: for the clean-up, the reconciliation and the watch for failovers. */
import { createRedisClient, type RedisClient } from './redis-client.ts'

/** More than for a request: a batch has many commands, and no client waits for it. */
const REDIS_TIMEOUT_MS = 5_000

/**
 * Connects, and does not connect again when the connection is lost.
 *
 * @throws if Redis does not respond
 */
export async function connectToRedis(url: string): Promise<RedisClient> {
  const redis = createRedisClient(url, {
    lazyConnect: true,
    commandTimeout: REDIS_TIMEOUT_MS,
    connectTimeout: REDIS_TIMEOUT_MS,
    retryStrategy: () => null,
  })
  await redis.connect()
  return redis
}
