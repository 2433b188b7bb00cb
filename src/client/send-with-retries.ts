/** Sends an order and retries transient failures. */
import { setTimeout as sleep } from 'node:timers/promises'
import { computeBackOffMs } from './back-off.ts'
import { type NetworkError, type OrderResponse, postOrder } from './post-order.ts'
import { parseRetryAfter } from './retry-after.ts'
import type { SignedOrder } from './sign.ts'

export interface SendOptions {
  maxAttempts: number
  /** time limit for all attempts and the waits between them, in ms; below 2 ** 31 */
  maxTimeMs: number
  /** time limit for the response of one attempt, in ms */
  timeoutMs: number
  /** called after each attempt, before the wait for the next one */
  onAttempt: (attempt: Attempt) => void
  /** returns a number from 0 to below 1, for the jitter */
  random: () => number
  /** returns ms since 1970 */
  now: () => number
  sleep: (ms: number) => Promise<unknown>
}

export const DEFAULTS: SendOptions = {
  // The back-off between 10 attempts is 43 s at most in total, which fits into maxTimeMs. A claim that a
  // killed process left for 5 s ends long before: each 409 has a Retry-After of a second or more.
  maxAttempts: 10,
  // A person at a terminal waits a minute.
  maxTimeMs: 60_000,
  // Far above the time of a slow response, and leaves time for several attempts.
  timeoutMs: 10_000,
  onAttempt: () => {},
  random: Math.random,
  // Unlike Date.now, it does not jump when the system clock is set.
  now: () => performance.timeOrigin + performance.now(),
  sleep,
}

/** One attempt, with either a `status` or an `error`. */
export interface Attempt {
  /** when the request was sent, in ISO 8601 */
  at: string
  tookMs: number
  status?: number
  /** the problem code of a refusal */
  code?: string | undefined
  /** why no complete response arrived */
  error?: string
  /** the wait before the next attempt; absent in the last attempt */
  waitMs?: number
}

export interface Outcome {
  attempts: Attempt[]
  /** the result of the last attempt */
  last: OrderResponse | NetworkError
  /** the limit that prevented another attempt after a retryable failure */
  stopReason: 'maxAttempts' | 'maxTimeMs' | undefined
}

/**
 * Sends an order until a response is final or a limit is reached. The order, and a refusal that a
 * retry would receive again, are final. Retryable are: no response, 408, 409 `request-in-progress`,
 * 429 and 5xx. All attempts have the same key and the same bytes, so they create one order at most.
 * Each attempt is signed again, because a message signature has a time.
 *
 * The wait before a retry is `Retry-After` plus the back-off, because the service may have sent the
 * same `Retry-After` to other clients. If the wait would end after `maxTimeMs`, sending stops at once.
 *
 * @param options replace {@link DEFAULTS}
 * @see RFC 9110 §10.2.3 (`Retry-After`), draft-ietf-httpapi-idempotency-key-header-07 §2.6
 */
export async function sendWithRetries(
  order: SignedOrder,
  options: Partial<SendOptions> = {},
): Promise<Outcome> {
  const { maxAttempts, maxTimeMs, timeoutMs, onAttempt, random, now, sleep } = {
    ...DEFAULTS,
    ...options,
  }
  const endsAt = now() + maxTimeMs
  const attempts: Attempt[] = []
  const findReachedLimit = (nextAttemptAt: number) => {
    if (attempts.length >= maxAttempts) return 'maxAttempts'
    return nextAttemptAt >= endsAt ? 'maxTimeMs' : undefined
  }
  for (;;) {
    const sentAt = now()
    // At least 1 ms, because the sleep may have ended a little late.
    const last = await postOrder(order, Math.max(1, Math.min(timeoutMs, endsAt - sentAt)))
    const endedAt = now()
    const attempt: Attempt = {
      at: new Date(sentAt).toISOString(),
      tookMs: Math.round(endedAt - sentAt),
      ...('error' in last ? last : { status: last.status, code: last.code }),
    }
    attempts.push(attempt)
    const waitMs = readRetryAfter(last, endedAt) + computeBackOffMs(attempts.length, random)
    const isFinal = !isRetryable(last)
    const stopReason = isFinal ? undefined : findReachedLimit(endedAt + waitMs)
    const isLast = isFinal || stopReason !== undefined
    if (!isLast) attempt.waitMs = waitMs
    onAttempt(attempt)
    if (isLast) return { attempts, last, stopReason }
    await sleep(waitMs)
  }
}

function isRetryable(result: OrderResponse | NetworkError): boolean {
  if ('error' in result) return true
  const { status, code } = result
  return status === 408 || status === 429 || status >= 500 || code === 'request-in-progress'
}

/** @returns the wait that the service requests, in ms */
function readRetryAfter(result: OrderResponse | NetworkError, now: number): number {
  if ('error' in result) return 0
  return parseRetryAfter(result.headers.get('retry-after'), now) ?? 0
}
