import { expect, test } from 'vitest'
import { restoreOrders } from '../../src/orders/remembered-orders.ts'
import type { Order } from '../../src/orders/schema.ts'

test('orders are restored in one order of keys and clients, so that inserts cannot deadlock', async () => {
  const columns: unknown[][] = []
  const runQuery = async (_text: string, parameters: unknown[] = []) => {
    columns.push(parameters)
    return []
  }
  const order = (client_id: string, idempotency_key: string) =>
    ({ client_id, idempotency_key, created_at: 0 }) as Order
  const lost = [order('b', 'k'), order('a', 'k'), order('c', 'j')]
  await restoreOrders(runQuery, lost)
  await restoreOrders(runQuery, lost.toReversed())
  expect(columns[0]).toContain('{"c","a","b"}')
  expect(columns[1]).toEqual(columns[0])
})
