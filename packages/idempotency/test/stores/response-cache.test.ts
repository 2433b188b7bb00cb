import { expect, test } from 'vitest'
import { cacheRepeats } from '../../src/stores/response-cache.ts'
import type { Claim, IdempotencyStore } from '../../src/stores/store.ts'

const response = { statusCode: 201, headers: { 'content-type': 'a/b' }, body: 'x' }

/** A store that finds this under every key, counted, and a cache before it. */
function open(found: Claim, { maxBytes = 1_000_000 } = {}) {
  let claims = 0
  let now = 0
  const store: IdempotencyStore = {
    leaseMs: 1,
    claim: async () => {
      claims++
      return found
    },
    complete: async () => {},
    release: async () => {},
  }
  const cached = cacheRepeats(store, { maxBytes, now: () => now })
  return {
    claim: (key: string, fingerprint = 'v1:a') => cached.claim(key, fingerprint, 'token'),
    claims: () => claims,
    pass: (ms: number) => {
      now += ms
    },
  }
}

test('an response is asked for once, and then known for as long as the store remembers it', async () => {
  const { claim, claims, pass } = open({ state: 'completed', response, remainingMs: 1_000 })
  for (let i = 0; i < 3; i++)
    expect(await claim('a')).toMatchObject({ state: 'completed', response })
  expect(claims()).toBe(1)
  pass(999)
  await claim('a')
  expect(claims()).toBe(1)
  pass(1)
  await claim('a')
  expect(claims()).toBe(2)
})

test('another request under a known key is a mismatch, and asks for nothing', async () => {
  const { claim, claims } = open({ state: 'completed', response, remainingMs: 1_000 })
  await claim('a')
  expect(await claim('a', 'v1:b')).toEqual({ state: 'mismatch', isCompleted: true })
  expect(claims()).toBe(1)
})

test.each<Claim>([
  { state: 'new' },
  { state: 'in_flight' },
  { state: 'mismatch', isCompleted: false },
  { state: 'completed', response },
])('what may change, or ends at a time unknown, is asked for each time: %j', async (found) => {
  const { claim, claims } = open(found)
  for (let i = 0; i < 3; i++) expect(await claim('a')).toEqual(found)
  expect(claims()).toBe(3)
})

test('the memory is bounded: the answers repeated longest ago are asked for again', async () => {
  const { claim, claims } = open(
    { state: 'completed', response, remainingMs: 1_000 },
    { maxBytes: 900 },
  )
  for (const key of ['a', 'b', 'c']) await claim(key)
  expect(claims()).toBe(3)
  await claim('c')
  expect(claims()).toBe(3)
  await claim('a')
  expect(claims()).toBe(4)
})
