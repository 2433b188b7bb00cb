import { describe, expect, test, vi } from 'vitest'
import { until } from '../../../test/support/until.ts'
import { DeadlineError, QueueFullError } from '../src/batching.ts'
import {
  errorHandler,
  ForeignRecordError,
  type IdempotencyStore,
  idempotency,
} from '../src/index.ts'
import { isBug } from '../src/store-errors.ts'
import { createEmptyApp, memoryStore, post } from './support/app.ts'

const bug = () => {
  throw new TypeError("Cannot read properties of undefined (reading 'fingerprint')")
}
const down = async () => {
  throw new Error('down')
}

/** An application with `recover`, whose store fails in one of its methods. */
async function createFailing(
  failing: Partial<IdempotencyStore>,
  handler: () => unknown = () => 'done',
) {
  const onStoreFailure = vi.fn()
  const { app, log } = createEmptyApp()
  await app.register(errorHandler)
  await app.register(idempotency, {
    store: { ...memoryStore(), ...failing },
    recover: async () => undefined,
    onStoreFailure,
  })
  app.post('/things/:id', handler)
  return { app, log, onStoreFailure }
}

const fail = () => {
  throw Object.assign(new Error('failed'), { statusCode: 500 })
}

describe('with a durable record', () => {
  test.each([
    ['claim', 'the key could not be claimed', undefined],
    ['complete', 'a response could not be stored', undefined],
    ['release', 'a key could not be released; trying again', fail],
  ] as const)('a bug in %s of a store is logged as an error', async (method, message, handler) => {
    for (const fails of [bug, async () => bug()]) {
      let calls = 0
      const failing = () => {
        if (calls++ === 0) return fails()
        return undefined
      }
      const { app, log, onStoreFailure } = await createFailing({ [method]: failing }, handler)
      expect((await post(app)).body).toContain(handler ? 'failed' : 'done')
      await until(() => calls > 0)
      const line = await until(() => log.find(({ msg }) => msg.startsWith(message)))
      expect(line).toMatchObject({
        level: 50,
        msg: `${message}: there is a bug in the store`,
        err: { message: expect.stringContaining('Cannot read properties') },
      })
      expect(onStoreFailure).not.toHaveBeenCalled()
    }
  })

  test.each([
    ['claim', undefined],
    ['complete', undefined],
    ['release', fail],
  ] as const)('a failure of %s is counted, and not logged above debug', async (method, handler) => {
    let calls = 0
    const failing = async () => {
      if (calls++ === 0) await down()
    }
    const { app, log, onStoreFailure } = await createFailing({ [method]: failing }, handler)
    await post(app)
    await until(() => onStoreFailure.mock.calls.length === 1)
    expect(log.filter(({ msg }) => msg !== 'failed')).toEqual([])
  })

  test('a claim that returns nothing is logged as a bug', async () => {
    const claim = (() => undefined) as unknown as IdempotencyStore['claim']
    const { app, log } = await createFailing({ claim })
    expect((await post(app)).body).toBe('done')
    expect(log.map(({ msg }) => msg)).toContain(
      'the key could not be claimed: there is a bug in the store',
    )
  })

  test('a record of another database is not a failure of the store', async () => {
    const claim = () => Promise.reject(new ForeignRecordError('another database'))
    const { app, log, onStoreFailure } = await createFailing({ claim })
    expect((await post(app)).body).toBe('done')
    expect(onStoreFailure).not.toHaveBeenCalled()
    expect(log).toEqual([])
  })
})

test.each([{ state: 'NEW' }, {}, undefined])(
  'a claim of %o is an error, and no handler runs',
  async (claim) => {
    const handler = vi.fn(() => 'done')
    const { app } = createEmptyApp()
    await app.register(errorHandler)
    const store = { ...memoryStore(), claim: async () => claim as never }
    await app.register(idempotency, { store })
    app.post('/things/:id', handler)
    expect((await post(app)).statusCode).toBe(500)
    expect(handler).not.toHaveBeenCalled()
  },
)

test('without a durable record, a claim that throws is refused, and released: it may have been made', async () => {
  for (const claim of [bug, down]) {
    const release = vi.fn(async () => {})
    const { app } = createEmptyApp()
    await app.register(errorHandler)
    await app.register(idempotency, { store: { ...memoryStore(), claim, release } })
    app.post('/things/:id', () => 'done')
    expect((await post(app)).statusCode).toBe(503)
    await until(() => release.mock.calls.length === 1)
  }
})

describe('an error', () => {
  test.each([
    new TypeError('undefined is not a function'),
    new ReferenceError('x is not defined'),
    new RangeError('Maximum call stack size exceeded'),
    new SyntaxError('Unexpected token'),
    Object.assign(new TypeError('wrong argument'), { code: 'ERR_INVALID_ARG_TYPE' }),
    'a text',
    undefined,
  ])('is a bug: %s', (error) => {
    expect(isBug(error)).toBe(true)
  })

  test.each([
    new Error('Connection is closed.'),
    Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' }),
    new DeadlineError('the idempotency store did not respond'),
    new QueueFullError('the queue is full'),
    new TypeError('fetch failed', { cause: new Error('connect ECONNREFUSED') }),
  ])('is a failure of the store: %s', (error) => {
    expect(isBug(error)).toBe(false)
  })
})
