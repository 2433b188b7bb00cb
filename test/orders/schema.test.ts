import canonicalize from 'canonicalize'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { canonicalizeOrder, FIELD_NAMES, NEW_ORDER } from '../../src/orders/schema.ts'
import { anyOrder, createFieldArbitrary } from '../support/orders.ts'

describe('the canonical form of an order', () => {
  test('is that of RFC 8785', () => {
    fc.assert(
      fc.property(anyOrder, (order) => {
        expect(canonicalizeOrder(order)).toBe(canonicalize(order))
      }),
      { numRuns: 2_000 },
    )
  })

  test('is the same for any order of the members', () => {
    const order = { item: 'book', user_id: 'user-1', amount: 500 }
    expect(canonicalizeOrder(order)).toBe('{"amount":500,"item":"book","user_id":"user-1"}')
  })

  test.each(FIELD_NAMES)('differs when %s differs', (name) => {
    fc.assert(
      fc.property(anyOrder, createFieldArbitrary(NEW_ORDER.properties[name]), (order, value) => {
        fc.pre(value !== order[name])
        const changed = { ...order, [name]: value }
        expect(canonicalizeOrder(changed)).not.toBe(canonicalizeOrder(order))
      }),
    )
  })
})
