/**
 * `@order-once/idempotency/conformance`: the tests of what a store must do, for any test runner.
 *
 * ```js
 * for (const { name, run } of storeTests) {
 *   test(name, async () => run(await createFixture()))
 * }
 * ```
 *
 * @module
 */
import assert from 'node:assert/strict'
import type { Claim, IdempotencyStore, StoredResponse } from './stores/store.ts'

/** An empty store, and what a test needs to do with it. */
export interface StoreFixture {
  store: IdempotencyStore
  /** Lets so many ms pass for the records: by a clock that the test sets, or by waiting. */
  pass(ms: number): unknown
}

/** A store whose records a test can delete. */
export interface LosingStoreFixture extends StoreFixture {
  /** Deletes all records, as a store that loses its memory does. */
  lose(): unknown
}

/** One test. It fails by an `AssertionError`. */
export interface StoreTest<Fixture = StoreFixture> {
  /** continues the sentence "the store …" */
  name: string
  run(fixture: Fixture): Promise<void>
}

/** More than most applications send at once. */
const SIMULTANEOUS_CLAIMS = 200

const KEY = 'key-001'
const RESPONSE: StoredResponse = {
  statusCode: 201,
  headers: { 'content-type': 'application/json; charset=utf-8' },
  body: '{"order":{"item":"b\u00f6\ud83d\ude00k"}}',
}
const REQUEST = { fingerprint: 'v1:a', response: RESPONSE }

/** So long before its end, a record must still be there: a store that is slow is not wrong. */
const computeMarginMs = ({ leaseMs }: IdempotencyStore) => leaseMs / 10

/** Claims the key at once, as many requests do that arrive together. */
function claimAtOnce(store: IdempotencyStore): Promise<Claim[]> {
  return Promise.all(
    Array.from({ length: SIMULTANEOUS_CLAIMS }, (_, i) => store.claim(KEY, 'v1:a', `token-${i}`)),
  )
}

async function expectState(
  store: IdempotencyStore,
  state: Claim['state'],
  fingerprint = 'v1:a',
): Promise<void> {
  assert.equal((await store.claim(KEY, fingerprint, 'of the test')).state, state)
}

/** Expects that the key is completed, with this response. */
async function expectCompleted(store: IdempotencyStore, response = RESPONSE): Promise<void> {
  const claim = await store.claim(KEY, 'v1:a', 'of the test')
  assert.equal(claim.state, 'completed')
  assert.deepEqual(claim.state === 'completed' && claim.response, response)
}

async function expectMismatch(store: IdempotencyStore, isCompleted: boolean): Promise<void> {
  const claim = await store.claim(KEY, 'v1:b', 'of the test')
  assert.deepEqual(claim, { state: 'mismatch', isCompleted })
}

async function readRemainingMs(store: IdempotencyStore): Promise<number> {
  const claim = await store.claim(KEY, 'v1:a', 'of the test')
  assert.equal(claim.state, 'in_flight')
  return claim.state === 'in_flight' ? claim.remainingMs : Number.NaN
}

/** What each store must do. */
export const storeTests: StoreTest[] = [
  {
    name: 'gives a free key to one of many claims at once',
    async run({ store }) {
      const states = (await claimAtOnce(store)).map(({ state }) => state)
      assert.equal(states.filter((state) => state === 'new').length, 1)
      assert.equal(states.filter((state) => state === 'in_flight').length, states.length - 1)
    },
  },
  {
    name: 'gives an expired key to one of many claims at once',
    async run({ store, pass }) {
      await store.claim(KEY, 'v1:a', 'of a dead process')
      await pass(store.leaseMs)
      const claims = await claimAtOnce(store)
      assert.equal(claims.filter(({ state }) => state === 'new').length, 1)
    },
  },
  {
    name: 'accepts a claim that is sent twice, and extends its lease',
    async run({ store, pass }) {
      const almostMs = store.leaseMs - computeMarginMs(store)
      await store.claim(KEY, 'v1:a', 'token')
      await pass(almostMs)
      assert.deepEqual(await store.claim(KEY, 'v1:a', 'token'), { state: 'new' })
      await pass(almostMs)
      await expectState(store, 'in_flight')
    },
  },
  {
    name: 'reports a mismatch with another request, in flight or completed, and changes nothing',
    async run({ store }) {
      await store.claim(KEY, 'v1:a', 'token')
      await expectMismatch(store, false)
      await expectState(store, 'in_flight')
      await store.complete(KEY, 'token', REQUEST)
      await expectMismatch(store, true)
      await expectCompleted(store)
    },
  },
  {
    name: 'keeps keys apart',
    async run({ store }) {
      await store.claim(KEY, 'v1:a', 'token')
      for (const other of [`${KEY} `, `${KEY}0`, KEY.toUpperCase(), `tenant,${KEY}`]) {
        assert.deepEqual(await store.claim(other, 'v1:b', 'other'), { state: 'new' })
      }
    },
  },
  {
    name: 'frees a released key',
    async run({ store }) {
      await store.claim(KEY, 'v1:a', 'token')
      await store.release(KEY, 'token')
      await expectState(store, 'new', 'v1:b')
    },
  },
  {
    name: 'lets only the owner of a claim complete or release it',
    async run({ store }) {
      await store.claim(KEY, 'v1:a', 'token')
      await store.release(KEY, 'other')
      await store.complete(KEY, 'other', { ...REQUEST, fingerprint: 'v1:b' })
      await expectState(store, 'in_flight')
    },
  },
  {
    name: 'keeps the first response: not even its owner can replace or release it',
    async run({ store }) {
      await store.claim(KEY, 'v1:a', 'token')
      await store.complete(KEY, 'token', REQUEST)
      const other = { ...REQUEST, response: { ...RESPONSE, body: 'other' } }
      await store.complete(KEY, 'token', other)
      await store.release(KEY, 'token')
      await expectCompleted(store)
    },
  },
  {
    name: 'does not let an owner claim a key again that it has completed',
    async run({ store }) {
      await store.claim(KEY, 'v1:a', 'token')
      await store.complete(KEY, 'token', REQUEST)
      assert.equal((await store.claim(KEY, 'v1:a', 'token')).state, 'completed')
    },
  },
  {
    name: 'fences an owner whose lease has ended and whose key another has claimed',
    async run({ store, pass }) {
      await store.claim(KEY, 'v1:b', 'old')
      await pass(store.leaseMs)
      await store.claim(KEY, 'v1:a', 'new')
      assert.equal(await store.renew(KEY, 'v1:b', 'old'), false)
      const late = { ...REQUEST, response: { ...RESPONSE, body: 'late' } }
      await store.complete(KEY, 'old', late)
      await store.release(KEY, 'old')
      await expectState(store, 'in_flight')
      await store.complete(KEY, 'new', REQUEST)
      await store.complete(KEY, 'old', late)
      await expectCompleted(store)
    },
  },
  {
    name: 'keeps a claim for one lease, and no longer',
    async run({ store, pass }) {
      const marginMs = computeMarginMs(store)
      await store.claim(KEY, 'v1:a', 'token')
      await pass(store.leaseMs - marginMs)
      await expectState(store, 'in_flight')
      await pass(marginMs)
      await expectState(store, 'new')
    },
  },
  {
    name: 'reports what is left of the lease of a claim in flight',
    async run({ store, pass }) {
      const { leaseMs } = store
      const marginMs = computeMarginMs(store)
      await store.claim(KEY, 'v1:a', 'token')
      const atFirst = await readRemainingMs(store)
      assert.ok(atFirst > leaseMs - marginMs && atFirst <= leaseMs, `${atFirst} of ${leaseMs} ms`)
      await pass(leaseMs / 2)
      const later = await readRemainingMs(store)
      assert.ok(later > leaseMs / 2 - marginMs && later <= leaseMs / 2, `${later} ms at half time`)
      await store.renew(KEY, 'v1:a', 'token')
      assert.ok((await readRemainingMs(store)) > leaseMs - marginMs, 'after a renewal')
    },
  },
  {
    name: 'renews a claim for one lease from then on',
    async run({ store, pass }) {
      const marginMs = computeMarginMs(store)
      await store.claim(KEY, 'v1:a', 'token')
      for (let i = 0; i < 3; i++) {
        await pass(store.leaseMs - marginMs)
        assert.equal(await store.renew(KEY, 'v1:a', 'token'), true)
      }
      await pass(store.leaseMs - marginMs)
      await expectState(store, 'in_flight')
      await pass(marginMs)
      await expectState(store, 'new')
    },
  },
  {
    name: 'does not renew the claim of another token, and changes nothing',
    async run({ store, pass }) {
      const marginMs = computeMarginMs(store)
      await store.claim(KEY, 'v1:a', 'token')
      await pass(marginMs)
      assert.equal(await store.renew(KEY, 'v1:b', 'other'), false)
      await expectState(store, 'in_flight')
      await pass(store.leaseMs - marginMs)
      await expectState(store, 'new')
    },
  },
  {
    name: 'does not renew a completed record, and keeps its response',
    async run({ store, pass }) {
      await store.claim(KEY, 'v1:a', 'token')
      await store.complete(KEY, 'token', REQUEST)
      assert.equal(await store.renew(KEY, 'v1:a', 'token'), false)
      assert.equal(await store.renew(KEY, 'v1:a', 'other'), false)
      await pass(store.leaseMs)
      await expectCompleted(store)
    },
  },
  {
    name: 'claims the key again by a renewal after the lease has ended',
    async run({ store, pass }) {
      await store.claim(KEY, 'v1:a', 'token')
      await pass(store.leaseMs)
      assert.equal(await store.renew(KEY, 'v1:a', 'token'), true)
      await expectMismatch(store, false)
      await pass(store.leaseMs)
      await expectState(store, 'new')
    },
  },
  {
    name: 'stores the response of a run without a claim, whose record may be lost',
    async run({ store }) {
      await store.complete(KEY, 'token', REQUEST)
      await expectCompleted(store)
    },
  },
  {
    name: 'lets an owner complete after its lease, if the key has not been claimed since',
    async run({ store, pass }) {
      await store.claim(KEY, 'v1:a', 'token')
      await pass(store.leaseMs)
      await store.complete(KEY, 'token', REQUEST)
      await expectCompleted(store)
    },
  },
  {
    name: 'keeps a response for its time to live, which replays do not extend',
    async run({ store, pass }) {
      const marginMs = computeMarginMs(store)
      await store.claim(KEY, 'v1:a', 'token')
      await store.complete(KEY, 'token', REQUEST)
      await pass(store.ttlMs - marginMs)
      await expectCompleted(store)
      await pass(marginMs)
      await expectState(store, 'new')
    },
  },
  {
    name: 'returns a text, bytes and nothing unchanged, and a header of several values',
    async run({ store, pass }) {
      const several = { link: ['<a>; rel="x"', '<b>; rel="y"'] }
      const headers = {
        'content-type': 'a/b',
        ...(store.replayedHeaders.includes('link') && several),
      }
      for (const body of ['text', Buffer.from([0x00, 0xff, 0xc3, 0x28, 0x80, 0x0a]), '']) {
        const response = { statusCode: 202, headers, body }
        await store.claim(KEY, 'v1:a', 'token')
        await store.complete(KEY, 'token', { ...REQUEST, response })
        await expectCompleted(store, response)
        await pass(store.ttlMs)
      }
    },
  },
  {
    name: 'does not take a response that contains the text of a claim for a claim',
    async run({ store, pass }) {
      const claim = '{"state":"in_flight","payload_hash":"v1:a","token":"token"}'
      for (const body of ['{"token":"token"}', claim, JSON.stringify(claim)]) {
        const response = { ...RESPONSE, body }
        await store.claim(KEY, 'v1:a', 'token')
        await store.complete(KEY, 'token', { ...REQUEST, response })
        assert.equal(await store.renew(KEY, 'v1:a', 'token'), false)
        await store.release(KEY, 'token')
        await store.complete(KEY, 'token', REQUEST)
        await expectCompleted(store, response)
        await pass(store.ttlMs)
      }
    },
  },
  {
    name: 'names the headers that it keeps in lower case, and its times in ms',
    async run({ store }) {
      const { replayedHeaders, leaseMs, ttlMs } = store
      assert.deepEqual(
        replayedHeaders,
        replayedHeaders.map((name) => name.toLowerCase()),
      )
      assert.ok(replayedHeaders.includes('content-type'))
      assert.ok(leaseMs > 0 && ttlMs > 0)
    },
  },
]

/** What a store must do that can lose records. */
export const lossTests: StoreTest<LosingStoreFixture>[] = [
  {
    name: 'claims a lost record again by a renewal',
    async run({ store, lose }) {
      await store.claim(KEY, 'v1:a', 'token')
      await lose()
      assert.equal(await store.renew(KEY, 'v1:a', 'token'), true)
      await expectMismatch(store, false)
      await expectState(store, 'in_flight')
    },
  },
  {
    name: 'gives a key whose response is lost to a new claim',
    async run({ store, lose }) {
      await store.claim(KEY, 'v1:a', 'token')
      await store.complete(KEY, 'token', REQUEST)
      await lose()
      await expectState(store, 'new')
    },
  },
]
