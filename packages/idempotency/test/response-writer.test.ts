import { describe, expect, test, vi } from 'vitest'
import { createGate } from '../../../test/support/gate.ts'
import { until } from '../../../test/support/until.ts'
import { createMemoryStore, type IdempotencyStore } from '../src/index.ts'
import { createApp, isReplayed, LEASE_MS, memoryStore, post } from './support/app.ts'

const BEGIN = 'a response could not be stored; trying again'
const GIVEN_UP = 'a response was not stored: a repeat of its request may run the handler again'

/** A store whose `complete` fails while a test wants it to. */
function createFailingStore(inner: IdempotencyStore = memoryStore()) {
  const failing = {
    isDown: true,
    tries: 0,
    store: {
      ...inner,
      complete: async (...args: Parameters<IdempotencyStore['complete']>) => {
        failing.tries++
        if (failing.isDown) throw new Error('down')
        return inner.complete(...args)
      },
    } satisfies IdempotencyStore,
    inner,
    isStored: async () => (await inner.claim('key', 'f', 'other')).state === 'completed',
  }
  return failing
}

/** An application on such a store. */
async function createOn(store: IdempotencyStore, options: object = {}, handler = () => 'done') {
  const onWriteFailure = vi.fn()
  const onNotRemembered = vi.fn()
  const created = await createApp(handler, {
    store,
    fingerprint: ({ body }) => ((body as { a?: number }).a === 1 ? 'f' : 'other'),
    onWriteFailure,
    onNotRemembered,
    ...options,
  })
  return { ...created, onWriteFailure, onNotRemembered }
}

describe('a response that the store has failed to keep', () => {
  test('is replayed from memory, and stored as soon as the store works', async () => {
    const failing = createFailingStore()
    const { app, runs, warnings, onWriteFailure, onNotRemembered } = await createOn(failing.store)
    expect((await post(app)).body).toBe('done')
    await until(() => failing.tries >= 3)
    const repeat = await post(app)
    expect(repeat.body).toBe('done')
    expect(isReplayed(repeat)).toBe(true)
    expect((await post(app, { a: 2 })).json().code).toBe('idempotency-key-reused')
    expect(await failing.isStored()).toBe(false)
    failing.isDown = false
    await until(failing.isStored)
    expect(isReplayed(await post(app))).toBe(true)
    expect(runs()).toBe(1)
    expect(warnings).toEqual([BEGIN])
    expect(onWriteFailure).toHaveBeenCalledTimes(1)
    expect(onNotRemembered).not.toHaveBeenCalled()
  })

  test('is replayed and stored later, if the store does not respond to a write', async () => {
    const inner = memoryStore()
    const gate = createGate()
    const store: IdempotencyStore = {
      ...inner,
      complete: async (...args) => {
        if (gate.arrived < 2) await gate.pass()
        return inner.complete(...args)
      },
    }
    const { app, runs, warnings, onWriteFailure } = await createOn(store, { storeTimeoutMs: 20 })
    await post(app)
    await until(() => onWriteFailure.mock.calls.length === 1)
    expect(isReplayed(await post(app))).toBe(true)
    await until(async () => (await inner.claim('key', 'f', 'other')).state === 'completed')
    expect(runs()).toBe(1)
    expect(gate.arrived).toBe(2)
    expect(warnings).toEqual([BEGIN])
    gate.open()
  })

  test('keeps its claim, beyond its lease', async () => {
    let now = 0
    const failing = createFailingStore(memoryStore({ now: () => now }))
    const { app } = await createOn(failing.store)
    await post(app)
    now += LEASE_MS - 1
    const tries = failing.tries
    await until(() => failing.tries > tries + 1)
    now += LEASE_MS - 1
    expect(await failing.inner.claim('key', 'f', 'other')).toMatchObject({ state: 'in_flight' })
    failing.isDown = false
    await until(failing.isStored)
  })

  test('is stored already if only the reply of the store was lost', async () => {
    const inner = memoryStore()
    let writes = 0
    const store: IdempotencyStore = {
      ...inner,
      complete: async (...args) => {
        writes++
        await inner.complete(...args)
        throw new Error('the reply was lost')
      },
    }
    const { app, warnings, onNotRemembered } = await createOn(store)
    await post(app)
    await app.close() // waits
    expect(writes).toBe(1)
    expect(warnings).toEqual([BEGIN])
    expect(onNotRemembered).not.toHaveBeenCalled()
  })

  test('is given up if another run has its key', async () => {
    const failing = createFailingStore()
    const { app, warnings, onNotRemembered } = await createOn({
      ...failing.store,
      claim: async (key, fingerprint, token) => {
        if (failing.tries > 0) return { state: 'in_flight', remainingMs: LEASE_MS }
        return failing.inner.claim(key, fingerprint, token)
      },
    })
    await post(app)
    await until(() => onNotRemembered.mock.calls.length === 1)
    expect(onNotRemembered).toHaveBeenCalledWith('not-stored')
    expect(warnings).toEqual([BEGIN, GIVEN_UP])
    expect(failing.tries).toBe(1)
  })

  test('is given up when its time to live is over', async () => {
    const failing = createFailingStore(createMemoryStore({ leaseMs: LEASE_MS, ttlMs: 200 }))
    const { app, warnings, onNotRemembered } = await createOn(failing.store)
    await post(app)
    await until(() => onNotRemembered.mock.calls.length === 1)
    expect(warnings).toEqual([BEGIN, GIVEN_UP])
    expect(failing.tries).toBeGreaterThan(1)
  })

  test('is given up if 16 MiB of others are not stored either', async () => {
    const failing = createFailingStore()
    const { app, warnings, onNotRemembered } = await createOn(
      failing.store,
      { maxBodyBytes: 20 * 1024 * 1024, closeTimeoutMs: 0 },
      () => 'x'.repeat(10 * 1024 * 1024),
    )
    for (const key of ['one', 'two']) {
      await post(app, { a: 1 }, { 'idempotency-key': key })
    }
    expect(onNotRemembered.mock.calls).toEqual([['not-stored']])
    expect(warnings.at(-1)).toBe('a response is not stored: too many others are not stored either')
    const repeat = await post(app, { a: 1 }, { 'idempotency-key': 'one' })
    expect(isReplayed(repeat)).toBe(true)
  })

  test('is tried once if a durable record protects the key', async () => {
    const failing = createFailingStore()
    const { app, warnings, onWriteFailure } = await createOn(failing.store, {
      recover: async () => undefined,
    })
    await post(app)
    await app.close()
    expect(failing.tries).toBe(1)
    expect(warnings).toEqual([])
    expect(onWriteFailure).not.toHaveBeenCalled()
  })

  test('is waited for when the application closes', async () => {
    const failing = createFailingStore()
    const { app, warnings, onNotRemembered } = await createOn(failing.store)
    await post(app)
    const closing = app.close()
    failing.isDown = false
    await closing
    expect(await failing.isStored()).toBe(true)
    expect(warnings).toEqual([BEGIN])
    expect(onNotRemembered).not.toHaveBeenCalled()
  })

  test('is waited for also while its first write is in flight', async () => {
    const gate = createGate()
    const failing = createFailingStore()
    failing.isDown = false
    const { app } = await createOn({
      ...failing.store,
      complete: async (...args) => {
        await gate.pass()
        return failing.inner.complete(...args)
      },
    })
    await post(app)
    const closing = app.close()
    gate.open()
    await closing
    expect(await failing.isStored()).toBe(true)
  })

  test('is waited for no longer than closeTimeoutMs; then the log says what is lost', async () => {
    const failing = createFailingStore()
    const { app, warnings, onNotRemembered } = await createOn(failing.store, { closeTimeoutMs: 50 })
    await post(app)
    await app.close()
    expect(warnings).toEqual([
      BEGIN,
      '1 responses are lost: a repeat of their requests runs the handler again',
    ])
    await until(() => onNotRemembered.mock.calls.length === 1)
  })

  test('is not waited for longer, although the store does not respond', async () => {
    const gate = createGate()
    const failing = createFailingStore()
    const { app } = await createOn(
      {
        ...failing.store,
        claim: async (...args) => {
          if (failing.tries > 0) await gate.pass()
          return failing.inner.claim(...args)
        },
      },
      { closeTimeoutMs: 50 },
    )
    await post(app)
    await until(() => gate.arrived === 1)
    await app.close()
    gate.open()
  })
})
