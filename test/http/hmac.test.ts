import { createHmac } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createHmacSha256 } from '../../src/signature/signature.ts'

// RFC 4231 §4: its other keys are bytes that no text in UTF-8 has, or are covered below.
test.each([
  [
    'Jefe',
    'what do ya want for nothing?',
    '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
  ],
  [
    '\x0b'.repeat(20),
    'Hi There',
    'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7',
  ],
])('the test case of RFC 4231 with the key %j is answered as there', (secret, message, digits) => {
  expect(createHmacSha256(secret)(Buffer.from(message))).toBe(digits)
})

test('any key and message are signed as by crypto.createHmac', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary', minLength: 1, maxLength: 200 }),
      fc.array(fc.uint8Array({ maxLength: 10_000 }), { minLength: 1, maxLength: 3 }),
      (secret, messages) => {
        const sign = createHmacSha256(secret) // which keeps nothing of one message for the next
        for (const message of messages) {
          const expected = createHmac('sha256', secret).update(message).digest('hex')
          expect(sign(Buffer.from(message))).toBe(expected)
        }
      },
    ),
    { numRuns: 500 },
  )
})
