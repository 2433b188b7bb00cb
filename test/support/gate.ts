/** Lets a test decide when the inserts go on. */
import type { OrdersRepository } from '../../src/orders/repository.ts'

export interface Gate {
  /** how many calls have come to the gate */
  arrived: number
  /** Resolves once the gate is open. */
  pass(): Promise<void>
  open(): void
}

export function createGate(): Gate {
  let open = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  const gate: Gate = {
    arrived: 0,
    pass: () => {
      gate.arrived++
      return opened
    },
    open,
  }
  return gate
}

/** For `wrapOrders`: the first `count` inserts wait until the gate is open. */
export const delayInserts =
  (gate: Gate, count = Number.POSITIVE_INFINITY) =>
  (orders: OrdersRepository): OrdersRepository => ({
    ...orders,
    insertOnce: async (order) => {
      if (gate.arrived < count) await gate.pass()
      return orders.insertOnce(order)
    },
  })
