import { describe, expect, test } from 'vitest'
import { fingerprintCanonical, fingerprintRequest } from '../src/fingerprint.ts'

const order = { user_id: 'user-1', item: 'book', amount: 500 }
const fingerprint = fingerprintRequest({ method: 'POST', path: '/orders', body: order })

describe('a fingerprint', () => {
  test('is the version and a SHA-256 in hex', () => {
    expect(fingerprint).toMatch(/^v1:[0-9a-f]{64}$/)
  })

  test('is stable: stored fingerprints are compared with new ones', () => {
    expect(fingerprint).toBe('v1:9191989f4954f778c66846c1d3cf9bdd4c04f5c460bd511abea4cab91a628cb1')
  })

  test('does not depend on the order of members or on how a number is written', () => {
    const other = JSON.parse('{"amount": 5.00e2, "item": "b\\u006fok", "user_id": "user-1"}')
    expect(fingerprintRequest({ method: 'POST', path: '/orders', body: other })).toBe(fingerprint)
  })

  test.each([
    ['user_id', { ...order, user_id: 'user-2' }],
    ['item', { ...order, item: 'Book' }],
    ['amount', { ...order, amount: 500.0001 }],
    ['one more member', { ...order, note: '' }],
    ['exchanged values', { ...order, user_id: 'book', item: 'user-1' }],
    ['Unicode in another normal form', { ...order, item: 'bo\u006f\u0301k' }],
  ])('changes with %s', (_name, body) => {
    expect(fingerprintRequest({ method: 'POST', path: '/orders', body })).not.toBe(fingerprint)
  })

  test('changes with the method and with the path', () => {
    expect(fingerprintRequest({ method: 'PUT', path: '/orders', body: order })).not.toBe(
      fingerprint,
    )
    expect(fingerprintRequest({ method: 'POST', path: '/refunds', body: order })).not.toBe(
      fingerprint,
    )
  })

  test('changes with the parameters and with the query, and keeps them apart', () => {
    const input = { method: 'POST', path: '/orders/:id', body: order }
    const fingerprints = [
      fingerprintRequest(input),
      fingerprintRequest({ ...input, params: { id: '1' } }),
      fingerprintRequest({ ...input, params: { id: '2' } }),
      fingerprintRequest({ ...input, query: { id: '1' } }),
      fingerprintRequest({ ...input, params: { id: '1' }, query: { id: '1' } }),
    ]
    expect(new Set(fingerprints).size).toBe(fingerprints.length)
    expect(fingerprintRequest({ ...input, params: {}, query: {} })).toBe(fingerprints[0])
  })

  test('of bytes is that of the bytes as they are', () => {
    const input = { method: 'POST', path: '/orders' }
    const of = (text: string) => fingerprintRequest({ ...input, body: Buffer.from(text) })
    expect(of('{"a":1}')).toBe(of('{"a":1}'))
    expect(of('{"a":1}')).not.toBe(of('{"a": 1}'))
  })

  test('of a body in canonical form is the same without parsing it', () => {
    const body = '{"amount":500,"item":"book","user_id":"user-1"}'
    expect(fingerprintCanonical('POST', '/orders', body)).toBe(fingerprint)
  })

  test('does not exist for a number that JSON does not have', () => {
    const body = { amount: Number.POSITIVE_INFINITY }
    expect(() => fingerprintRequest({ method: 'POST', path: '/orders', body })).toThrow()
  })
})
