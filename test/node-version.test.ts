import { expect, test } from 'vitest'
import { isOpenToHashCollisions } from '../src/node-version.ts'

test.each([
  ['20.20.1', true],
  ['20.20.2', false],
  ['20.21.0', false],
  ['21.7.3', true],
  ['22.22.1', true],
  ['22.22.2', false],
  ['23.11.0', true],
  ['24.14.0', true],
  ['24.14.1', false],
  ['25.8.1', true],
  ['25.8.2', false],
  ['26.0.0', false],
])('whether Node.js %s is open to hash collisions: %s', (version, isOpen) => {
  expect(isOpenToHashCollisions(version)).toBe(isOpen)
})
