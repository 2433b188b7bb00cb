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
    settle: (results: Promise<(number | Promise<number>)[]>) => void
  }[] = []
  const batcher = new Batcher<number, number>({
    maxItems: 100,
    limit,
    ...options,
    send: (items) => new Promise((resolve) => sent.push({ items, settle: resolve })),
  })
  const batches = () => sent.map(({ items }) => items)
  const response = (index: number) => {
    const { items, settle } = sent[index] as (typeof sent)[number]
    settle(Promise.resolve(items.map((item) => item * 10)))
  }
  return { batcher, sent, batches, response }
}

describe('a batcher', () => {
  test('sends what one turn of the event loop brings, together, and each gets its own result', async () => {
    const { batcher, batches, response } = createBatcher({})
    const results = Promise.all([batcher.add(1), batcher.add(2), batcher.add(3)])
    expect(batches()).toEqual([])
    await nextTurn()
    expect(batches()).toEqual([[1, 2, 3]])
    response(0)
    expect(await results).toEqual([10, 20, 30])
  })

  test('does not wait for company: one item alone goes when its turn ends', async () => {
    const { batcher, batches } = createBatcher({})
    void batcher.add(1)
    await nextTurn()
    expect(batches()).toEqual([[1]])
  })

  test('lets items gather while as many batches are on their way as may be, and not longer', async () => {
    const { batcher, batches, response } = createBatcher({ limit: new ConcurrencyLimit(2) })
    for (const item of [1, 2, 3, 4]) {
      void batcher.add(item)
      await nextTurn()
    }
    expect(batches()).toEqual([[1], [2]])
    response(1)
    await until(() => batches().length === 3)
    expect(batches()).toEqual([[1], [2], [3, 4]])
  })

  test('sends no more than it may in one batch', async () => {
    const { batcher, batches, response } = createBatcher({ maxItems: 2 })
    const results = Promise.all([1, 2, 3].map((item) => batcher.add(item)))
    await nextTurn()
    expect(batches()).toEqual([[1, 2]])
    response(0)
    await until(() => batches().length === 2)
    response(1)
    expect(await results).toEqual([10, 20, 30])
    expect(batches()).toEqual([[1, 2], [3]])
  })

  test('refuses at once what is more than may wait, and takes more when a batch has gone', async () => {
    const { batcher, batches, response } = createBatcher({ maxWaiting: 2 })
    const first = batcher.add(1)
    await nextTurn()
    void batcher.add(2)
    void batcher.add(3)
    await expect(batcher.add(4)).rejects.toThrow(QueueFullError)
    response(0)
    expect(await first).toBe(10)
    await until(() => batches().length === 2)
    void batcher.add(5)
    void batcher.add(6)
    await expect(batcher.add(7)).rejects.toThrow(QueueFullError)
  })

  test('tells all items of a batch that fails as a whole, and sends the next', async () => {
    const { batcher, sent, batches, response } = createBatcher({})
    const failed = Promise.allSettled([batcher.add(1), batcher.add(2)])
    await nextTurn()
    const next = batcher.add(3)
    sent[0]?.settle(Promise.reject(new Error('lost')))
    const reasons = (await failed).map((result) => result.status === 'rejected' && result.reason)
    expect(reasons).toEqual([new Error('lost'), new Error('lost')])
    await until(() => batches().length === 2)
    response(1)
    expect(await next).toBe(30)
  })

  test('tells one item of its own failure, and the others of their results', async () => {
    const { batcher, sent } = createBatcher({})
    const results = Promise.allSettled([batcher.add(1), batcher.add(2)])
    await nextTurn()
    sent[0]?.settle(Promise.resolve([Promise.reject(new Error('bad item')), 20]))
    expect(await results).toEqual([
      { status: 'rejected', reason: new Error('bad item') },
      { status: 'fulfilled', value: 20 },
    ])
  })
})

describe('batchers that share a limit', () => {
  test('send at the same moment, and gather until what they have sent is back', async () => {
    const limit = new ConcurrencyLimit(1)
    const [one, other] = [createBatcher({ limit }), createBatcher({ limit })]
    void one.batcher.add(1)
    void other.batcher.add(2)
    await nextTurn()
    expect([one.batches(), other.batches()]).toEqual([[[1]], [[2]]])
    void one.batcher.add(3)
    one.response(0)
    await nextTurn()
    await nextTurn()
    expect(one.batches(), 'while the other one is on its way').toEqual([[1]])
    other.response(0)
    await until(() => one.batches().length === 2)
    expect([one.batches(), other.batches()]).toEqual([[[1], [3]], [[2]]])
  })

  test('do not hear of each other’s failures', async () => {
    const limit = new ConcurrencyLimit(1)
    const [one, other] = [createBatcher({ limit }), createBatcher({ limit })]
    const failed = one.batcher.add(1)
    const answered = other.batcher.add(2)
    await nextTurn()
    one.sent[0]?.settle(Promise.reject(new Error('lost')))
    other.response(0)
    await expect(failed).rejects.toThrow('lost')
    expect(await answered).toBe(20)
  })
})
