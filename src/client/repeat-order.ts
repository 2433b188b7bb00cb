/** Sends the same order many times, to show that the service creates it exactly once. */
import { postOrder } from './post-order.ts'
import type { SignedOrder } from './sign.ts'

/** The responses to one order that was sent many times. */
export interface RepeatSummary {
  /** number of requests */
  sent: number
  /** responses with the order that are not replays */
  firstResponses: number
  /** responses with the order that are replays */
  replays: number
  /** number of refusals by problem code, or by status if the response has no code */
  refusals: Record<string, number>
  /** requests without a complete response */
  networkErrors: number
  /** distinct ids of the order; more than one shows that the service created a duplicate */
  orderIds: string[]
  /** distinct bodies of the responses with the order; more than one shows that a replay differed */
  bodies: string[]
}

/** Whether the order was created exactly once, and every response with it has the same body. */
export function isExactlyOnce({ orderIds, bodies }: RepeatSummary): boolean {
  return orderIds.length === 1 && bodies.length === 1
}

/**
 * Sends an order many times and counts the responses. It does not retry, so that each request
 * counts once.
 *
 * @param options `concurrency`: maximum number of requests in flight; `timeoutMs`: time limit for
 * each response; `onProgress`: called after each request with the number of finished requests
 */
export async function repeatOrder(
  order: SignedOrder,
  times: number,
  options: { concurrency: number; timeoutMs: number; onProgress?: (done: number) => void },
): Promise<RepeatSummary> {
  const counts = { sent: 0, firstResponses: 0, replays: 0, networkErrors: 0 }
  const refusals: Record<string, number> = {}
  const orderIds = new Set<string>()
  const bodies = new Set<string>()
  let done = 0

  async function sendOne() {
    counts.sent++
    const result = await postOrder(order, options.timeoutMs)
    if ('error' in result) counts.networkErrors++
    else if (result.order) {
      counts[result.replayed ? 'replays' : 'firstResponses']++
      orderIds.add(result.order.id)
      bodies.add(result.body)
    } else {
      const name = result.code ?? `${result.status}`
      refusals[name] = (refusals[name] ?? 0) + 1
    }
    options.onProgress?.(++done)
  }

  async function sendUntilAllAreSent() {
    while (counts.sent < times) await sendOne()
  }
  await Promise.all(Array.from({ length: options.concurrency }, sendUntilAllAreSent))
  return { ...counts, refusals, orderIds: [...orderIds], bodies: [...bodies] }
}
