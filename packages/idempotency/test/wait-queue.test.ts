import { request } from 'node:http'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { createGate } from '../../../test/support/gate.ts'
import { until } from '../../../test/support/until.ts'
import type { IdempotencyOptions, IdempotencyStore } from '../src/index.ts'
import { WaitQueue } from '../src/wait-queue.ts'
import { createApp, memoryStore, post } from './support/app.ts'

/** A store whose watches the test can count and notify. */
function createWatchedStore() {
  const listeners = new Set<() => void>()
  const store: IdempotencyStore = {
    ...memoryStore(),
    watch: async (_key, onChange) => {
      listeners.add(onChange)
      return () => void listeners.delete(onChange)
    },
  }
  const notify = () => {
    for (const listener of listeners) listener()
  }
  return { store, listeners, notify }
}

describe('a waiter', () => {
  test('is woken once for the changes since the last call', async () => {
    const { store, notify } = createWatchedStore()
    const waiter = await new WaitQueue(store, 1).add('key', 60_000)
    notify()
    notify()
    expect(await waiter?.waitForChange()).toBe(true)
    let isWoken = false
    const next = waiter?.waitForChange().then((hasChanged) => {
      isWoken = true
      return hasChanged
    })
    await Promise.resolve()
    expect(isWoken).toBe(false)
    notify()
    expect(await next).toBe(true)
    waiter?.remove()
  })

  test.each([
    ['its time limit', async () => void (await vi.advanceTimersByTimeAsync(1_000))],
    ['end', async ({ waiter }: { waiter: { end(): void } }) => waiter.end()],
    ['the close of the queue', async ({ queue }: { queue: WaitQueue }) => queue.close()],
  ])('is ended by %s', async (_name, end) => {
    vi.useFakeTimers()
    onTestFinished(() => void vi.useRealTimers())
    const queue = new WaitQueue(createWatchedStore().store, 1)
    const waiter = await queue.add('key', 1_000)
    if (waiter === undefined) throw new Error('no waiter')
    const change = waiter.waitForChange()
    await end({ waiter, queue })
    expect(await change).toBe(false)
    expect(await waiter.waitForChange()).toBe(false)
    waiter.remove()
  })

  test('leaves nothing behind: no timer, no watch, no place', async () => {
    vi.useFakeTimers()
    onTestFinished(() => void vi.useRealTimers())
    const { store, listeners } = createWatchedStore()
    const counts: number[] = []
    const queue = new WaitQueue(store, 1, (count) => counts.push(count))
    const waiter = await queue.add('key', 1_000)
    expect(listeners.size).toBe(1)
    expect(await queue.add('key', 1_000)).toBeUndefined()
    waiter?.remove()
    await vi.advanceTimersByTimeAsync(0)
    expect(listeners.size).toBe(0)
    expect(vi.getTimerCount()).toBe(0)
    expect(counts).toEqual([1, 0])
    const next = await queue.add('key', 1_000)
    expect(next).toBeDefined()
    next?.remove()
  })

  test('does not wait longer for a watch than for the key, and stops a watch that comes too late', async () => {
    vi.useFakeTimers()
    onTestFinished(() => void vi.useRealTimers())
    const stop = vi.fn()
    let startWatch = () => {}
    const watch = () =>
      new Promise<() => void>((resolve) => {
        startWatch = () => resolve(stop)
      })
    const adding = new WaitQueue({ ...memoryStore(), watch }, 1).add('key', 1_000)
    await vi.advanceTimersByTimeAsync(1_000)
    const waiter = await adding
    expect(await waiter?.waitForChange()).toBe(false)
    waiter?.remove()
    startWatch()
    await vi.advanceTimersByTimeAsync(0)
    expect(stop).toHaveBeenCalledTimes(1)
    expect(vi.getTimerCount()).toBe(0)
  })

  test.each<[string, IdempotencyStore['watch']]>([
    ['does not watch', undefined],
    ['cannot watch now', () => Promise.reject(new Error('down'))],
  ])('polls a store that %s', async (_name, watch) => {
    vi.useFakeTimers()
    onTestFinished(() => void vi.useRealTimers())
    const { watch: _, ...store } = memoryStore()
    const waiter = await new WaitQueue({ ...store, ...(watch && { watch }) }, 1).add('key', 60_000)
    const change = waiter?.waitForChange()
    await vi.advanceTimersByTimeAsync(500)
    expect(await change).toBe(true)
    waiter?.remove()
    await vi.advanceTimersByTimeAsync(0)
    expect(vi.getTimerCount()).toBe(0)
  })

  test('is refused by a closed queue', async () => {
    const queue = new WaitQueue(memoryStore(), 1)
    queue.close()
    expect(await queue.add('key', 1_000)).toBeUndefined()
  })
})

describe('a duplicate that waits', () => {
  /** An application whose first handler waits at a gate, and a request that has arrived there. */
  async function startFirst(handler: () => unknown, options: Partial<IdempotencyOptions> = {}) {
    const gate = createGate()
    let waiting = 0
    const created = await createApp(
      async () => {
        if (gate.arrived === 0) await gate.pass()
        return handler()
      },
      { waitMs: 30_000, onWaitersChange: (count) => (waiting = count), ...options },
    )
    const first = post(created.app)
    await until(() => gate.arrived === 1)
    return { ...created, gate, first, waiting: () => waiting }
  }

  test('gets the response of the first request as a replay', async () => {
    const { app, gate, first, runs, waiting } = await startFirst(() => 'done')
    const duplicates = [post(app), post(app)]
    await until(() => waiting() === 2)
    gate.open()
    expect((await first).headers['idempotency-replayed']).toBeUndefined()
    for (const duplicate of await Promise.all(duplicates)) {
      expect(duplicate.body).toBe('done')
      expect(duplicate.headers['idempotency-replayed']).toBe('true')
    }
    expect(runs()).toBe(1)
    expect(waiting()).toBe(0)
  })

  test('runs the handler itself if the first request fails', async () => {
    let failures = 1
    const { app, gate, first, runs, waiting } = await startFirst(() => {
      if (failures-- > 0) throw new Error('failed')
      return 'done'
    })
    const duplicates = [post(app), post(app)]
    await until(() => waiting() === 2)
    gate.open()
    expect((await first).statusCode).toBe(500)
    const replies = await Promise.all(duplicates)
    expect(replies.map(({ body }) => body)).toEqual(['done', 'done'])
    expect(runs()).toBe(2)
  })

  test('is refused when its time is over, and when too many wait', async () => {
    const { app, gate, first, waiting } = await startFirst(() => 'done', { maxWaiters: 1 })
    const duplicate = post(app, { a: 1 }, { prefer: 'wait=1' })
    await until(() => waiting() === 1)
    const refused = await post(app)
    expect(refused.json().code).toBe('request-in-progress')
    expect(refused.headers['retry-after']).toBe('1')
    const late = await duplicate
    expect(late.json().code).toBe('request-in-progress')
    expect(late.headers['preference-applied']).toBe('wait=1')
    gate.open()
    await first
  })

  test('with another body is refused at once', async () => {
    const { app, gate, first } = await startFirst(() => 'done')
    expect((await post(app, { a: 2 })).json().code).toBe('idempotency-key-reused')
    gate.open()
    await first
  })

  test('is refused when the application closes', async () => {
    const { app, gate, first, waiting } = await startFirst(() => 'done')
    const duplicate = post(app)
    await until(() => waiting() === 1)
    const closing = app.close()
    expect((await duplicate).json().code).toBe('request-in-progress')
    gate.open()
    await first
    await closing
  })

  test('frees its place when its client disconnects', async () => {
    const { app, gate, first, waiting } = await startFirst(() => 'done')
    const { port } = new URL(await app.listen({ port: 0, host: '127.0.0.1' }))
    const headers = { 'content-type': 'application/json', 'idempotency-key': 'key' }
    const duplicate = request({
      port,
      host: '127.0.0.1',
      method: 'POST',
      path: '/things/1',
      headers,
    })
    duplicate.on('error', () => {}) // its connection is closed
    duplicate.end('{"a":1}')
    await until(() => waiting() === 1)
    duplicate.destroy()
    await until(() => waiting() === 0)
    gate.open()
    await first
  })
})
