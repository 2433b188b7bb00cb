import { postOrder } from './post-order.ts'
import type { SignedOrder } from './sign.ts'

/** What came back of the same order, sent many times. */
export interface Tally {
  sent: number
  /** answers with the order that are not marked as replays */
  firstAnswers: number
  replays: number
  /** how many, by the service's name for the refusal, or by the status of an answer without one */
  refusals: Record<string, number>
  /** requests without an answer */
  networkErrors: number
  /** the distinct ones; exactly one, if the order was created exactly once */
  orderIds: string[]
  /** the distinct ones of answers with the order; exactly one, if replays are true to the byte */
  bodies: string[]
}

/** Whether the order was created exactly once, and every answer with it is the same. */
export const isExactlyOnce = ({ orderIds, bodies }: Tally) =>
  orderIds.length === 1 && bodies.length === 1

/**
 * Sends the same order many times, some of them at once, to show that it is created exactly once.
 * Nothing is repeated on a refusal, so that every answer of the service is counted.
 *
 * @param options `concurrency`: how many requests are on their way at most; `timeoutMs`: how long
 * each waits for its answer; `onAnswer`: hears after each how many are done
 */
export async function repeatOrder(
  order: SignedOrder,
  times: number,
  options: { concurrency: number; timeoutMs: number; onAnswer?: (done: number) => void },
): Promise<Tally> {
  const tally = { sent: 0, firstAnswers: 0, replays: 0, networkErrors: 0 }
  const refusals: Record<string, number> = {}
  const orderIds = new Set<string>()
  const bodies = new Set<string>()
  let done = 0

  async function sendOne() {
    tally.sent++
    const reply = await postOrder(order, options.timeoutMs)
    if ('error' in reply) tally.networkErrors++
    else if (reply.order) {
      tally[reply.replayed ? 'replays' : 'firstAnswers']++
      orderIds.add(reply.order.id)
      bodies.add(reply.body)
    } else {
      const name = reply.code ?? `${reply.status}`
      refusals[name] = (refusals[name] ?? 0) + 1
    }
    options.onAnswer?.(++done)
  }

  async function sendWhileAnyIsLeft() {
    while (tally.sent < times) await sendOne()
  }
  await Promise.all(Array.from({ length: options.concurrency }, sendWhileAnyIsLeft))
  return { ...tally, refusals, orderIds: [...orderIds], bodies: [...bodies] }
}
