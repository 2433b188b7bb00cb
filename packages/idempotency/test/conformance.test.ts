import { describe, expect, test } from 'vitest'
import { storeTests } from '../src/conformance.ts'
import type { IdempotencyStore } from '../src/index.ts'
import { createApp, isReplayed, memoryStore, post } from './support/app.ts'

/** Finds the tests that a store fails. */
async function findFailures(spoil: (store: IdempotencyStore) => Partial<IdempotencyStore>) {
  const failures: string[] = []
  for (const { name, run } of storeTests) {
    let now = 0
    const inner = memoryStore({ now: () => now })
    const store = { ...inner, ...spoil(inner) }
    const pass = (ms: number) => {
      now += ms
    }
    await run({ store, pass }).catch(() => failures.push(name))
  }
  return failures
}

describe('the conformance tests', () => {
  test('pass for a store that is right', async () => {
    expect(await findFailures(() => ({}))).toEqual([])
  })

  test.each<[string, (store: IdempotencyStore) => Partial<IdempotencyStore>]>([
    ['gives a key to each claim', () => ({ claim: async () => ({ state: 'new' }) })],
    [
      'does not compare fingerprints',
      (store) => ({ claim: (key, _fingerprint, token) => store.claim(key, 'v1:a', token) }),
    ],
    [
      'mixes keys up',
      (store) => ({
        claim: (key, ...others) => store.claim(key.trim().toLowerCase(), ...others),
      }),
    ],
    [
      'claims in two steps',
      (store) => ({
        claim: async (key, fingerprint, token) => {
          const found = await store.claim(key, fingerprint, 'of the look-up')
          if (found.state !== 'new') return found
          await store.release(key, 'of the look-up')
          await store.claim(key, fingerprint, token)
          return { state: 'new' }
        },
      }),
    ],
    ['never releases', () => ({ release: async () => {} })],
    ['never stores a response', () => ({ complete: async () => {} })],
    ['always says that it has renewed', () => ({ renew: async () => true })],
    ['never renews', () => ({ renew: async () => false })],
    [
      'changes the bytes',
      (store) => ({
        complete: (key, token, { fingerprint, response }) =>
          store.complete(key, token, {
            fingerprint,
            response: { ...response, body: response.body.toString() },
          }),
      }),
    ],
    ['has wrong times', ({ leaseMs }) => ({ leaseMs: 2 * leaseMs })],
    ['has a wrong time to live', ({ ttlMs }) => ({ ttlMs: 2 * ttlMs })],
  ])('fail for a store that %s', async (_fault, spoil) => {
    expect(await findFailures(spoil)).not.toEqual([])
  })
})

test('a store may be a class with private members', async () => {
  class ClassStore implements IdempotencyStore {
    readonly #inner = memoryStore()
    get leaseMs() {
      return this.#inner.leaseMs
    }
    get ttlMs() {
      return this.#inner.ttlMs
    }
    get replayedHeaders() {
      return this.#inner.replayedHeaders
    }
    claim(...args: Parameters<IdempotencyStore['claim']>) {
      return this.#inner.claim(...args)
    }
    renew(...args: Parameters<IdempotencyStore['renew']>) {
      return this.#inner.renew(...args)
    }
    complete(...args: Parameters<IdempotencyStore['complete']>) {
      return this.#inner.complete(...args)
    }
    release(...args: Parameters<IdempotencyStore['release']>) {
      return this.#inner.release(...args)
    }
  }
  const { app, runs } = await createApp(() => 'done', { store: new ClassStore() })
  await post(app)
  expect(isReplayed(await post(app))).toBe(true)
  expect(runs()).toBe(1)
})
