import { setTimeout as pause } from 'node:timers/promises'
import type { ProblemCode } from '../http/problem.ts'
import { backOffMs } from './back-off.ts'
import { type Answer, type NoAnswer, postOrder } from './post-order.ts'
import { retryAfterMs } from './retry-after.ts'
import type { SignedOrder } from './sign.ts'

export interface SendOptions {
  /** how often the order is sent at most */
  maxAttempts: number
  /** how long it may take altogether, in ms; below 2 ** 31 */
  maxTimeMs: number
  /** how long one attempt waits for its answer, in ms */
  timeoutMs: number
  /** hears of each attempt when it has ended, before the wait for the next */
  onAttempt: (attempt: Attempt) => void
  /** from 0 to below 1, for the jitter */
  random: () => number
  /** ms since 1970 */
  now: () => number
  sleep: (ms: number) => Promise<unknown>
}

export const DEFAULTS: SendOptions = {
  maxAttempts: 10,
  maxTimeMs: 60_000,
  timeoutMs: 10_000,
  onAttempt: () => {},
  random: Math.random,
  // Unlike Date.now, it does not jump when the system's clock is set.
  now: () => performance.timeOrigin + performance.now(),
  sleep: pause,
}

/** One attempt: either `status` or `error` is there. */
export interface Attempt {
  /** when it was sent, in ISO 8601 */
  at: string
  tookMs: number
  status?: number
  /** the service's name for a refusal */
  code?: string | undefined
  /** why there was no answer */
  error?: string
  /** how long the next attempt is waited for; absent if this was the last */
  waitMs?: number
}

export interface Outcome {
  attempts: Attempt[]
  /** what became of the last attempt; the order is in its `order` */
  last: Answer | NoAnswer
  /** the bound that ended the attempts, though another might have succeeded */
  gaveUp: 'maxAttempts' | 'maxTimeMs' | undefined
}

/**
 * Sends an order until there is an answer that stands: the order, or a refusal that a repeat would
 * get again. What may pass is repeated with the same key and the same bytes, so that there is one
 * order at most: no answer, 408, 409 `request-in-progress`, 429 and 5xx. Before each repeat it waits
 * as long as `Retry-After` asks, and then for the jitter of the back-off, as others may have been
 * asked to wait as long. A wait that would not end in time is not begun.
 *
 * @param options what is to be otherwise than in {@link DEFAULTS}
 * @see RFC 9110 §10.2.3 (`Retry-After`), draft-ietf-httpapi-idempotency-key-header-07 §2.6
 */
export async function sendOrder(
  order: SignedOrder,
  options: Partial<SendOptions> = {},
): Promise<Outcome> {
  const { maxAttempts, maxTimeMs, timeoutMs, onAttempt, random, now, sleep } = {
    ...DEFAULTS,
    ...options,
  }
  const endsAt = now() + maxTimeMs
  const attempts: Attempt[] = []
  const boundMet = (attempted: number, nextAt: number) => {
    if (attempted >= maxAttempts) return 'maxAttempts'
    return nextAt >= endsAt ? 'maxTimeMs' : undefined
  }
  for (;;) {
    const sentAt = now()
    // At least 1: a sleep may last a little longer than it should.
    const last = await postOrder(order, Math.max(1, Math.min(timeoutMs, endsAt - sentAt)))
    const endedAt = now()
    const attempt: Attempt = {
      at: new Date(sentAt).toISOString(),
      tookMs: Math.round(endedAt - sentAt),
      ...('error' in last ? last : { status: last.status, code: last.code }),
    }
    attempts.push(attempt)
    const waitMs = askedWaitMs(last, endedAt) + backOffMs(attempts.length, random)
    const isSettled = !mayPass(last)
    const gaveUp = isSettled ? undefined : boundMet(attempts.length, endedAt + waitMs)
    const isLast = isSettled || gaveUp !== undefined
    if (!isLast) attempt.waitMs = waitMs
    onAttempt(attempt)
    if (isLast) return { attempts, last, gaveUp }
    await sleep(waitMs)
  }
}

const IN_PROGRESS: ProblemCode = 'request-in-progress'

function mayPass(reply: Answer | NoAnswer): boolean {
  if ('error' in reply) return true
  const { status, code } = reply
  return status === 408 || status === 429 || status >= 500 || code === IN_PROGRESS
}

function askedWaitMs(reply: Answer | NoAnswer, now: number): number {
  if ('error' in reply) return 0
  return retryAfterMs(reply.headers.get('retry-after'), now) ?? 0
}
