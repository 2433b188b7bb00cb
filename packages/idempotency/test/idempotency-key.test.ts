import { expect, test } from 'vitest'
import { KEY_CHARACTERS, MAX_KEY_LENGTH, parseIdempotencyKey } from '../src/idempotency-key.ts'

const ALLOWED = "!#$%&'()*+-./0123456789:;<=>?@AZ[]^_`az{|}~"

test.each(['k', 'k'.repeat(MAX_KEY_LENGTH), ALLOWED])(
  '%s is a key, with quotes and without',
  (key) => {
    expect(parseIdempotencyKey(key)).toBe(key)
    expect(parseIdempotencyKey(`"${key}"`)).toBe(key)
  },
)

test.each([
  ['nothing', ''],
  ['an empty string', '""'],
  ['256 bytes', 'k'.repeat(MAX_KEY_LENGTH + 1)],
  ['256 bytes in quotes', `"${'k'.repeat(MAX_KEY_LENGTH + 1)}"`],
  ['one quote', '"'],
  ['a quote at the start', '"key'],
  ['a quote at the end', 'key"'],
  ['parameters', '"key";a=1'],
  ['two keys', 'key, key'],
  ['a line break at the end', 'key\n'],
])('%s is no key', (_name, header) => {
  expect(parseIdempotencyKey(header)).toBeUndefined()
})

test('a key has visible ASCII characters, without double quotes, commas and backslashes', () => {
  const character = new RegExp(`^${KEY_CHARACTERS}$`)
  for (let code = 0; code <= 0x180; code++) {
    const text = String.fromCharCode(code)
    const isAllowed = code > 0x20 && code < 0x7f && !'",\\'.includes(text)
    expect(parseIdempotencyKey(text), `character ${code}`).toBe(isAllowed ? text : undefined)
    expect(character.test(text), `character ${code}`).toBe(isAllowed)
  }
})
