import fc from 'fast-check'

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

/** An order as the contract allows it. */
export const validOrder = fc.record({
  user_id: text,
  item: text,
  amount: fc.oneof(amount, fc.constantFrom(0.0001, 0.1, 500, 99_999_999_999.9999)),
})
