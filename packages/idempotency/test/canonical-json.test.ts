import { createContext, runInContext } from 'node:vm'
import canonicalizeByRfc8785 from 'canonicalize'
import fastCheck from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  canonicalize,
  MAX_DEPTH,
  NotCanonicalError,
  OpaqueValueError,
} from '../src/canonical-json.ts'

/** Nests arrays so many levels deep. */
const nest = (levels: number) => JSON.parse('['.repeat(levels) + ']'.repeat(levels))

describe('the canonical form', () => {
  test('of JSON is that of RFC 8785 §3.2.2 and §3.2.3', () => {
    const value = JSON.parse(`{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001, -0],
      "string": "\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\"\\/",
      "literals": [null, true, false],
      "\\u20ac": 1, "\\r": 2, "\\ufb33": 3, "1": 4, "\\ud83d\\ude00": 5, "\\u0080": 6, "\\u00f6": 7
    }`)
    expect(canonicalize(value)).toBe(
      '{"\\r":2,"1":4,"literals":[null,true,false],' +
        '"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27,0],' +
        '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/","\u0080":6,"\u00f6":7,"\u20ac":1,"\ud83d\ude00":5,"\ufb33":3}',
    )
  })

  test('of any JSON is that of another implementation, and its own canonical form', () => {
    fastCheck.assert(
      fastCheck.property(fastCheck.jsonValue(), (one) => {
        expect(canonicalize(JSON.parse(canonicalize(one)))).toBe(canonicalize(one))
        expect(canonicalize(one)).toBe(canonicalizeByRfc8785(one))
      }),
    )
  })

  test.each([
    ['bytes', Buffer.from('a'), Buffer.from('b')],
    ['bytes and their text', Buffer.from('a'), 'a'],
    ['bytes and the text of their form', Buffer.from('a'), canonicalize(Buffer.from('a'))],
    ['numbers and BigInts', 1, 1n],
    ['BigInts', 9007199254740993n, 9007199254740992n],
    ['BigInts and the text of their form', 1n, '1n'],
    ['dates', new Date(0), new Date(1)],
    ['strings and arrays of one', 'a', ['a']],
    ['null and an empty object', null, {}],
    ['empty arrays and empty objects', [], {}],
    ['two halves of a surrogate pair', '\ud800', '\ud801'],
    ['Unicode in two normal forms', '\u00f6', 'o\u0308'],
  ])('tells %s apart, alone and within other data', (_name, one, other) => {
    for (const wrap of [(value: unknown) => value, (value: unknown) => ({ a: [value] })]) {
      expect(canonicalize(wrap(one))).not.toBe(canonicalize(wrap(other)))
    }
  })

  test('of a view of bytes is that of its part of the buffer', () => {
    const bytes = Buffer.from('abcabc')
    expect(canonicalize(bytes.subarray(0, 3))).toBe(canonicalize(bytes.subarray(3)))
    expect(canonicalize(new Uint8Array([97]))).toBe(canonicalize(Buffer.from('a')))
  })

  test('of an object with toJSON is that of its result', () => {
    const decimal = { toJSON: () => '12.50' }
    expect(canonicalize({ amount: decimal })).toBe('{"amount":"12.50"}')
    expect(canonicalize([new Date(0)])).toBe('["1970-01-01T00:00:00.000Z"]')
  })

  test('of an object without a prototype, or of another realm, is that of its members', () => {
    const withoutPrototype = Object.assign(Object.create(null), { b: 1, a: 2 })
    const ofForm = Object.assign(Object.create(Object.create(null)), { b: 1, a: 2 })
    const ofOtherRealm = runInContext('({ b: 1, a: 2 })', createContext())
    for (const object of [withoutPrototype, ofForm, ofOtherRealm, { a: 2, b: 1 }]) {
      expect(canonicalize(object)).toBe('{"a":2,"b":1}')
    }
  })

  test('has no member that is undefined, as in JSON', () => {
    expect(canonicalize({ a: undefined, b: [undefined] })).toBe('{"b":[null]}')
  })

  class Hidden {
    readonly #secret = 1
    read = () => this.#secret
  }
  const circular: Record<string, unknown> = {}
  circular.self = [circular]

  test.each([
    ['a function', () => {}],
    ['a symbol', Symbol('s')],
    ['undefined', undefined],
    ['a Map', new Map([['a', 1]])],
    ['a Set', new Set([1])],
    ['a RegExp', /a/],
    ['an Error', new Error('a')],
    ['an ArrayBuffer', new ArrayBuffer(1)],
    ['an instance of a class', new Hidden()],
    ['an instance of a class without a name', new (class {})()],
    ['an instance of a class of another realm', runInContext('new Map()', createContext())],
    ['a string object', Object('a')],
    ['a circular value', circular],
  ])('does not exist for %s, which cannot be told from another', (_name, value) => {
    expect(() => canonicalize(value)).toThrow(OpaqueValueError)
    if (value !== undefined) expect(() => canonicalize({ a: [value] })).toThrow(OpaqueValueError)
  })

  test('may contain one object twice', () => {
    const part = { a: 1 }
    expect(canonicalize([part, part])).toBe('[{"a":1},{"a":1}]')
  })

  test.each([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN])(
    'does not exist for %d, which a client can send',
    (value) => {
      expect(() => canonicalize({ a: [value] })).toThrow(NotCanonicalError)
    },
  )

  test(`exists for ${MAX_DEPTH} levels, and for no more`, () => {
    expect(canonicalize(nest(MAX_DEPTH))).toHaveLength(2 * MAX_DEPTH)
    expect(() => canonicalize(nest(MAX_DEPTH + 1))).toThrow(NotCanonicalError)
    expect(() => canonicalize(nest(100_000))).toThrow(NotCanonicalError)
  })
})
