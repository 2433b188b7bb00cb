import { expect, test } from 'vitest'
import { cacheRepeats } from '../../src/stores/response-cache.ts'
import type { Claim } from '../../src/stores/store.ts'

const response = { statusCode: 201, headers: { 'content-type': 'a/b' }, body: 'x' }

/** A cache in front of a store that finds this under every key; counts the claims that reach the store. */
function createCache(found: Claim, { maxBytes = 1_000_000 } = {}) {
  let claims = 0
  let now = 0
  const claim = cacheRepeats(
    async () => {
      claims++
      return found
    },
    { maxBytes, now: () => now },
  )
  return {
    claim: (key: string, fingerprint = 'v1:a') => claim(key, fingerprint, 'token'),
    claims: () => claims,
    pass: (ms: number) => {
      now += ms
    },
  }
}

test('a repeated response is read from the store once, and cached for as long as the store keeps it', async () => {
  const { claim, claims, pass } = createCache({ state: 'completed', response, remainingMs: 1_000 })
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

test('a response is cached for at most 60 s, however long the store keeps it', async () => {
  const { claim, claims, pass } = createCache({
    state: 'completed',
    response,
    remainingMs: 86_400_000,
  })
  await claim('a')
  pass(59_999) // repeats do not extend it
  await claim('a')
  expect(claims()).toBe(1)
  pass(1)
  await claim('a')
  expect(claims()).toBe(2)
})

test('another request under a cached key is a mismatch, without a call to the store', async () => {
  const { claim, claims } = createCache({ state: 'completed', response, remainingMs: 1_000 })
  await claim('a')
  expect(await claim('a', 'v1:b')).toEqual({ state: 'mismatch', isCompleted: true })
  expect(claims()).toBe(1)
})

test.each<Claim>([
  { state: 'new' },
  { state: 'in_flight', remainingMs: 1_000 },
  { state: 'mismatch', isCompleted: false },
  { state: 'completed', response },
])('what may change, or expires at an unknown time, is not cached: %j', async (found) => {
  const { claim, claims } = createCache(found)
  for (let i = 0; i < 3; i++) expect(await claim('a')).toEqual(found)
  expect(claims()).toBe(3)
})

test('the cache is bounded: the responses repeated longest ago are dropped', async () => {
  const { claim, claims } = createCache(
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
