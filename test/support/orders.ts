/** Orders for property tests. */
import fc from 'fast-check'
import { FIELD_NAMES, NEW_ORDER, type NewOrder } from '../../src/orders/schema.ts'

/** Any well-formed Unicode but NUL, not blank. */
const text = fc
  .oneof(
    fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }),
    fc.string({ unit: 'binary', minLength: 1, maxLength: 255 }),
    fc.constantFrom(
      ' leading and trailing ',
      '"quoted" \\ back',
      "it's",
      '\u2028',
      '{"a":1}',
      '%s',
    ),
  )
  .filter((value) => value.trim() !== '' && !value.includes('\0'))

/** At most 11 digits before the point, and up to 4 after it. */
const amount = fc
  .tuple(fc.integer({ min: 0, max: 99_999_999_999 }), fc.integer({ min: 1, max: 9_999 }))
  .map(([whole, decimals]) => Number(`${whole}.${String(decimals).padStart(4, '0')}`))

const boundaries = fc.constantFrom(0.0001, 0.1, 500, 99_999_999_999.9999)

/** Generates values of a field. @throws {Error} for a type that has no canonical form here */
export function createFieldArbitrary({ type }: { type: string }): fc.Arbitrary<unknown> {
  if (type === 'string') return text
  if (type === 'number') return fc.oneof(amount, boundaries)
  if (type === 'boolean') return fc.boolean()
  throw new Error(`canonicalizeOrder is not made for a field of type ${type}`)
}

/** Any order that the schema allows: optional fields may be absent. */
export const anyOrder = fc.record(
  Object.fromEntries(
    FIELD_NAMES.map((name) => [name, createFieldArbitrary(NEW_ORDER.properties[name])]),
  ),
  { requiredKeys: [...NEW_ORDER.required] },
) as fc.Arbitrary<NewOrder>
