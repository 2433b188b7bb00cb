import type { OrdersRepository } from '../../src/orders/repository.ts'

/** A gate that holds whoever passes it until it is opened. */
export interface Gate {
  /** how many have come to the gate */
  arrived: number
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

/** For `startService`: the repository, whose inserts are held by the gate. */
export const heldBy =
  (gate: Gate) =>
  (orders: OrdersRepository): OrdersRepository => ({
    ...orders,
    insertOnce: async (order) => {
      await gate.pass()
      return orders.insertOnce(order)
    },
  })
