import { expect, test } from 'vitest'
import { parsePreferredWait } from '../src/prefer-header.ts'

test.each([
  ['wait=10', 10],
  ['WAIT=10', 10],
  [' wait = 10 ', 10],
  ['wait="10"', 10],
  ['wait=0', 0],
  ['respond-async, wait=10', 10],
  ['wait=10; foo="bar", handling=strict', 10],
  [['respond-async', 'wait=10'], 10],
  ['wait=10, wait=20', 10],
])('Prefer: %s prefers to wait', (header, seconds) => {
  expect(parsePreferredWait(header)).toBe(seconds)
})

test.each([
  [undefined],
  [''],
  ['respond-async'],
  ['wait'],
  ['wait='],
  ['wait=-1'],
  ['wait=1.5'],
  ['wait=ten'],
  ['await=10'],
])('Prefer: %s has no wait that can be read', (header) => {
  expect(parsePreferredWait(header)).toBeUndefined()
})
