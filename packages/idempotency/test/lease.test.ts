import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { createGate } from '../../../test/support/gate.ts'
import { until } from '../../../test/support/until.ts'
import type { IdempotencyStore } from '../src/index.ts'
import { createApp, LEASE_MS, memoryStore, post } from './support/app.ts'

const LOST = 'the lease was lost to another request while the handler ran'

/** A store and the heartbeats on it, which age by `pass` alone. */
function createAgingStore() {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  onTestFinished(() => void vi.useRealTimers())
  let now = 0
  return {
    store: memoryStore({ now: () => now }),
    /** lets time pass, and the heartbeats of that time run */
    pass: async (ms: number) => {
      now += ms
      await vi.advanceTimersByTimeAsync(ms)
    },
    /** lets time pass without a heartbeat, as for a process that is stopped */
    passWithoutHeartbeat: (ms: number) => {
      now += ms
    },
  }
}

/** An application whose handler waits at a gate, and a request that has arrived there. */
async function startSlowRequest(
  store: IdempotencyStore,
  handler = () => 'done',
  options: object = {},
) {
  const gate = createGate()
  const run = async () => {
    await gate.pass()
    return handler()
  }
  const created = await createApp(run, { store, fingerprint: () => 'f', ...options })
  const slow = post(created.app)
  await until(() => gate.arrived === 1)
  return { ...created, gate, slow }
}

describe('a lease', () => {
  test('is renewed while the handler runs, and ends with the response', async () => {
    const { store, pass } = createAgingStore()
    const { app, runs, warnings, gate, slow } = await startSlowRequest(store)
    for (let third = 0; third < 9; third++) await pass(LEASE_MS / 3)
    expect((await post(app)).json().code).toBe('request-in-progress')
    gate.open()
    expect((await slow).body).toBe('done')
    expect((await post(app)).headers['idempotency-replayed']).toBe('true')
    expect(runs()).toBe(1)
    expect(vi.getTimerCount()).toBe(0)
    expect(warnings).toEqual([])
  })

  test('is renewed on time: duplicates are asked to repeat after a second', async () => {
    const { store, pass, passWithoutHeartbeat } = createAgingStore()
    const { app, gate, slow } = await startSlowRequest(store)
    const readRetryAfter = async () => (await post(app)).headers['retry-after']
    expect(await readRetryAfter()).toBe('1')
    await pass(LEASE_MS / 3)
    expect(await readRetryAfter()).toBe('1')
    passWithoutHeartbeat(LEASE_MS / 3) // the next renewal is due now
    expect(await readRetryAfter()).toBe('1')
    gate.open()
    await slow
  })

  test('is not renewed by a dead process: duplicates are asked to repeat when it ends', async () => {
    const { store, passWithoutHeartbeat } = createAgingStore()
    const { app, runs } = await createApp(() => 'done', { store, fingerprint: () => 'f' })
    const readRetryAfter = async () => Number((await post(app)).headers['retry-after'])
    await store.claim('key', 'f', 'of a dead process')
    passWithoutHeartbeat(LEASE_MS / 3 + 501)
    const seconds = await readRetryAfter()
    expect(seconds).toBe(Math.ceil(((LEASE_MS * 2) / 3 - 501) / 1000))
    passWithoutHeartbeat((seconds - 1) * 1000)
    expect(await readRetryAfter()).toBe(1)
    passWithoutHeartbeat(1000)
    expect((await post(app)).body).toBe('done')
    expect(runs()).toBe(1)
  })

  test('ends when the handler throws', async () => {
    const { store } = createAgingStore()
    const { gate, slow } = await startSlowRequest(store, () => {
      throw new Error('failed')
    })
    expect(vi.getTimerCount()).toBe(1)
    gate.open()
    expect((await slow).statusCode).toBe(500)
    expect(vi.getTimerCount()).toBe(0)
  })

  test('that is lost is not renewed any more, and does not change the claim of the new owner', async () => {
    const { store, pass, passWithoutHeartbeat } = createAgingStore()
    const { app, warnings, gate, slow } = await startSlowRequest(store)
    passWithoutHeartbeat(LEASE_MS)
    await store.claim('key', 'f', 'new owner')
    await pass(LEASE_MS - 1)
    expect(warnings).toEqual([LOST])
    expect(vi.getTimerCount()).toBe(0)
    gate.open()
    await slow
    expect((await post(app)).json().code).toBe('request-in-progress')
  })

  test('is renewed again after a renewal that failed, and says so in the log', async () => {
    const { store, pass } = createAgingStore()
    let failures = 1
    const failing: IdempotencyStore = {
      ...store,
      renew: async (...args) => {
        if (failures-- > 0) throw new Error('down')
        return store.renew(...args)
      },
    }
    const { app, warnings, gate, slow } = await startSlowRequest(failing)
    for (let third = 0; third < 6; third++) await pass(LEASE_MS / 3)
    expect(warnings).toEqual(['a lease could not be renewed'])
    expect((await post(app)).json().code).toBe('request-in-progress')
    gate.open()
    await slow
  })
})

describe('a renewal that is still in flight when the lease ends', () => {
  /** A store whose renewals are processed when the test says so. */
  function createStoreWithSlowRenewals() {
    const { store, pass } = createAgingStore()
    const renewals = createGate()
    const releases: string[] = []
    const slowStore: IdempotencyStore = {
      ...store,
      renew: async (...args) => {
        await renewals.pass()
        return store.renew(...args)
      },
      release: async (key, token) => {
        releases.push(token)
        return store.release(key, token)
      },
    }
    return { store, slowStore, renewals, releases, pass }
  }

  test('does not leave a released key claimed, which is counted once', async () => {
    const { store, slowStore, renewals, releases, pass } = createStoreWithSlowRenewals()
    const fail = () => {
      throw new Error('failed')
    }
    const onRelease = vi.fn()
    const { gate, slow } = await startSlowRequest(slowStore, fail, { onRelease })
    await pass(LEASE_MS / 3)
    expect(renewals.arrived).toBe(1)
    gate.open()
    expect((await slow).statusCode).toBe(500)
    expect(releases).toHaveLength(1)

    renewals.open()
    await until(() => releases.length === 2)
    expect(await store.claim('key', 'f', 'other')).toEqual({ state: 'new' })
    expect(onRelease).toHaveBeenCalledTimes(1)
  })

  test('does not release a key whose response is being stored', async () => {
    const { store, slowStore, renewals, releases, pass } = createStoreWithSlowRenewals()
    const completions = createGate()
    const complete: IdempotencyStore['complete'] = async (...args) => {
      await completions.pass()
      return store.complete(...args)
    }
    const { warnings, gate, slow, app } = await startSlowRequest({ ...slowStore, complete })
    await pass(LEASE_MS / 3)
    gate.open()
    await slow
    renewals.open()
    await vi.advanceTimersByTimeAsync(0)
    expect(await store.claim('key', 'f', 'other')).toMatchObject({ state: 'in_flight' })
    completions.open()
    await until(async () => (await post(app)).headers['idempotency-replayed'] === 'true')
    expect(releases).toEqual([])
    expect(warnings).toEqual([])
  })

  test('does not warn of a lost lease when the response has been stored', async () => {
    const { slowStore, renewals, releases, pass } = createStoreWithSlowRenewals()
    const { warnings, gate, slow, app } = await startSlowRequest(slowStore)
    await pass(LEASE_MS / 3)
    gate.open()
    await slow
    renewals.open()
    await vi.advanceTimersByTimeAsync(0)
    expect((await post(app)).headers['idempotency-replayed']).toBe('true')
    expect(releases).toEqual([])
    expect(warnings).toEqual([])
  })
})
