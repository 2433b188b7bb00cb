import canonicalize from 'canonicalize'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { canonicalOrder } from '../../src/orders/schema.ts'
import { validOrder } from '../support/orders.ts'

test('the canonical form of an order is that of RFC 8785', () => {
  fc.assert(
    fc.property(validOrder, (order) => {
      expect(canonicalOrder(order)).toBe(canonicalize(order))
    }),
    { numRuns: 2_000 },
  )
})

test('no two members of an order, in whatever order they came, make another form', () => {
  const order = { item: 'book', user_id: 'user-1', amount: 500 }
  expect(canonicalOrder(order)).toBe('{"amount":500,"item":"book","user_id":"user-1"}')
})
