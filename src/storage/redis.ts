import { Redis } from 'ioredis'
import type { Logger } from 'pino'

/** Within these, a request goes on without Redis rather than wait for it. */
const CONNECT_TIMEOUT_MS = 500
const COMMAND_TIMEOUT_MS = 200
/** Often enough that Redis is back in use soon after it is back. */
const MAX_RECONNECT_DELAY_MS = 1_000

/**
 * Opens a connection that is allowed to fail: its commands are answered or rejected within
 * `COMMAND_TIMEOUT_MS`, and never sent twice. It reconnects by itself, and logs one line when Redis
 * goes and one when it is back.
 *
 * @param url `redis://…` or `rediss://…`
 * @returns the connection, in use or being tried again
 */
export async function openRedis(url: string, log: Logger): Promise<Redis> {
  const redis = new Redis(url, {
    connectTimeout: CONNECT_TIMEOUT_MS,
    commandTimeout: COMMAND_TIMEOUT_MS,
    maxRetriesPerRequest: 1,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    retryStrategy: (attempt) => Math.min(attempt * 50, MAX_RECONNECT_DELAY_MS),
  })
  await new Promise<void>((resolve) => {
    let answers: boolean | undefined
    let lastError: Error | undefined
    redis.on('error', (error) => {
      lastError = error
    })
    redis.on('ready', () => {
      if (answers === false) log.info('Redis is back')
      answers = true
      resolve()
    })
    redis.on('close', () => {
      if (answers !== false && redis.status !== 'end') {
        log.warn({ err: lastError }, 'Redis does not answer; orders go on without it')
      }
      answers = false
      resolve()
    })
  })
  return redis
}
