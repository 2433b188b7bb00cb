import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { until } from '../../../test/support/until.ts'
import { Batcher, ConcurrencyLimit, QueueFullError } from '../src/batcher.ts'

/** A batcher of numbers, whose batches return when the test says so. */
function createBatcher({
  limit = new ConcurrencyLimit(1),
  ...options
}: {
  limit?: ConcurrencyLimit
  maxItems?: number
  maxWaiting?: number
}) {
  const sent: {
    items: number[]
    resolve: (results: Promise<(number | Promise<number>)[]>) => void
  }[] = []
  const batcher = new Batcher<number, number>({
    maxItems: 100,
    limit,
    ...options,
    send: (items) => new Promise((resolve) => sent.push({ items, resolve })),
  })
  const batches = () => sent.map(({ items }) => items)
  const respond = (index: number) => {
    const { items, resolve } = sent[index] as (typeof sent)[number]
    resolve(Promise.resolve(items.map((item) => item * 10)))
  }
  return { batcher, sent, batches, respond }
}

describe('a batcher', () => {
  test('sends the items of one turn of the event loop together, and returns to each its own result', async () => {
    const { batcher, batches, respond } = createBatcher({})
    const results = Promise.all([batcher.add(1), batcher.add(2), batcher.add(3)])
    expect(batches()).toEqual([])
    await nextTurn()
    expect(batches()).toEqual([[1, 2, 3]])
    respond(0)
    expect(await results).toEqual([10, 20, 30])
  })

  test('does not delay a batch to make it larger: a single item is sent at the end of its turn', async () => {
    const { batcher, batches } = createBatcher({})
    void batcher.add(1)
    await nextTurn()
    expect(batches()).toEqual([[1]])
  })

  test('collects items while the concurrency limit is reached, and no longer', async () => {
    const { batcher, batches, respond } = createBatcher({ limit: new ConcurrencyLimit(2) })
    for (const item of [1, 2, 3, 4]) {
      void batcher.add(item)
      await nextTurn()
    }
    expect(batches()).toEqual([[1], [2]])
    respond(1)
    await until(() => batches().length === 3)
    expect(batches()).toEqual([[1], [2], [3, 4]])
  })

  test('sends at most maxItems in one batch', async () => {
    const { batcher, batches, respond } = createBatcher({ maxItems: 2 })
    const results = Promise.all([1, 2, 3].map((item) => batcher.add(item)))
    await nextTurn()
    expect(batches()).toEqual([[1, 2]])
    respond(0)
    await until(() => batches().length === 2)
    respond(1)
    expect(await results).toEqual([10, 20, 30])
    expect(batches()).toEqual([[1, 2], [3]])
  })

  test('refuses an item at once while maxWaiting items wait, and accepts more once a batch is sent', async () => {
    const { batcher, batches, respond } = createBatcher({ maxWaiting: 2 })
    const first = batcher.add(1)
    await nextTurn()
    void batcher.add(2)
    void batcher.add(3)
    await expect(batcher.add(4)).rejects.toThrow(QueueFullError)
    respond(0)
    expect(await first).toBe(10)
    await until(() => batches().length === 2)
    void batcher.add(5)
    void batcher.add(6)
    await expect(batcher.add(7)).rejects.toThrow(QueueFullError)
  })

  test('rejects all items of a batch that fails as a whole, and sends the next batch', async () => {
    const { batcher, sent, batches, respond } = createBatcher({})
    const failed = Promise.allSettled([batcher.add(1), batcher.add(2)])
    await nextTurn()
    const next = batcher.add(3)
    sent[0]?.resolve(Promise.reject(new Error('lost')))
    const reasons = (await failed).map((result) => result.status === 'rejected' && result.reason)
    expect(reasons).toEqual([new Error('lost'), new Error('lost')])
    await until(() => batches().length === 2)
    respond(1)
    expect(await next).toBe(30)
  })

  test('rejects one item that fails alone, and resolves the others', async () => {
    const { batcher, sent } = createBatcher({})
    const results = Promise.allSettled([batcher.add(1), batcher.add(2)])
    await nextTurn()
    sent[0]?.resolve(Promise.resolve([Promise.reject(new Error('bad item')), 20]))
    expect(await results).toEqual([
      { status: 'rejected', reason: new Error('bad item') },
      { status: 'fulfilled', value: 20 },
    ])
  })

  test.each([[[10]], [[10, 20, 30]]])(
    'rejects all items of a batch of 2 that has the results %j, and sends the next batch',
    async (results) => {
      const { batcher, sent, batches, respond } = createBatcher({})
      const failed = Promise.allSettled([batcher.add(1), batcher.add(2)])
      await nextTurn()
      sent[0]?.resolve(Promise.resolve(results))
      const reason = new Error(`a batch of 2 items has ${results.length} results`)
      expect(await failed).toEqual([
        { status: 'rejected', reason },
        { status: 'rejected', reason },
      ])
      const next = batcher.add(3)
      await until(() => batches().length === 2)
      respond(1)
      expect(await next).toBe(30)
    },
  )

  test('reports the size of each batch, and does not stop if the report fails', async () => {
    const sizes: number[] = []
    const batcher = new Batcher<number, number>({
      maxItems: 100,
      limit: new ConcurrencyLimit(1),
      send: async (items) => items,
      onBatch: (size) => {
        if (sizes.push(size) === 1) throw new Error('the report failed')
      },
    })
    await expect(Promise.all([batcher.add(1), batcher.add(2)])).rejects.toThrow('the report failed')
    expect(await batcher.add(3)).toBe(3)
    expect(sizes).toEqual([2, 1])
  })
})

describe('batchers that share a limit', () => {
  test('send at the same moment, and collect until all their results are back', async () => {
    const limit = new ConcurrencyLimit(1)
    const [one, other] = [createBatcher({ limit }), createBatcher({ limit })]
    void one.batcher.add(1)
    void other.batcher.add(2)
    await nextTurn()
    expect([one.batches(), other.batches()]).toEqual([[[1]], [[2]]])
    void one.batcher.add(3)
    one.respond(0)
    await nextTurn()
    await nextTurn()
    expect(one.batches(), 'while the other one is in flight').toEqual([[1]])
    other.respond(0)
    await until(() => one.batches().length === 2)
    expect([one.batches(), other.batches()]).toEqual([[[1], [3]], [[2]]])
  })

  test('do not fail together', async () => {
    const limit = new ConcurrencyLimit(1)
    const [one, other] = [createBatcher({ limit }), createBatcher({ limit })]
    const failed = one.batcher.add(1)
    const succeeded = other.batcher.add(2)
    await nextTurn()
    one.sent[0]?.resolve(Promise.reject(new Error('lost')))
    other.respond(0)
    await expect(failed).rejects.toThrow('lost')
    expect(await succeeded).toBe(20)
  })
})
