import { Redis } from 'ioredis'
import OldestRedis from 'ioredis-oldest'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { createGate } from '../../../test/support/gate.ts'
import { redisServer, startPrivateRedis } from '../../../test/support/private-redis.ts'
import { emptyRedisSpace, hasRedis } from '../../../test/support/stores.ts'
import { until } from '../../../test/support/until.ts'
import { NotSentError } from '../src/batching.ts'
import { createRedisStore, type IdempotencyStore } from '../src/index.ts'
import { createApp, isReplayed, LEASE_MS, memoryStore, post } from './support/app.ts'

const TTL_MS = 86_400_000

/** A store whose `release` fails so often. */
function createFailingStore(failures: number) {
  const inner = memoryStore()
  const failing = {
    calls: 0,
    inner,
    store: {
      ...inner,
      release: async (...args: Parameters<IdempotencyStore['release']>) => {
        if (++failing.calls <= failures) throw new Error('down')
        return inner.release(...args)
      },
    } satisfies IdempotencyStore,
  }
  return failing
}

describe('a release', () => {
  test('that fails is repeated until it succeeds, is logged and counted once', async () => {
    const { store, inner } = createFailingStore(3)
    const onRelease = vi.fn()
    const { app, warnings } = await createApp((_request, reply) => reply.code(503).send(), {
      store,
      onRelease,
    })
    await post(app)
    await until(async () => (await inner.claim('key', 'v1:f', 'other')).state === 'new')
    expect(warnings).toEqual(['a key could not be released; trying again'])
    expect(onRelease).toHaveBeenCalledTimes(1)
  })

  test('of a claim that failed is repeated until it succeeds', async () => {
    const failing = createFailingStore(3)
    const store: IdempotencyStore = {
      ...failing.store,
      claim: async (...args) => {
        await failing.inner.claim(...args)
        throw new Error('the reply was lost')
      },
    }
    const { app } = await createApp(() => 'done', { store })
    expect((await post(app)).statusCode).toBe(503)
    await until(async () => (await failing.inner.claim('key', 'v1:f', 'other')).state === 'new')
    expect(failing.calls).toBe(4)
  })

  test('of a claim that is made after its request has failed is repeated then, with a durable record', async () => {
    const inner = memoryStore()
    const gate = createGate()
    const release = vi.fn(inner.release)
    const claim: IdempotencyStore['claim'] = async (...args) => {
      await gate.pass()
      return inner.claim(...args)
    }
    const { app } = await createApp((_request, reply) => reply.code(500).send(), {
      store: { ...inner, claim, release },
      storeTimeoutMs: 20,
      recover: async () => undefined,
    })
    expect((await post(app)).statusCode).toBe(500)
    expect(release).toHaveBeenCalledTimes(1)
    gate.open()
    await until(() => release.mock.calls.length === 2)
    expect(await inner.claim('key', 'v1:f', 'other')).toEqual({ state: 'new' })
  })

  test('is repeated if the store does not respond to it', async () => {
    const inner = memoryStore()
    const gate = createGate()
    const store: IdempotencyStore = {
      ...inner,
      release: async (...args) => {
        if (gate.arrived === 0) await gate.pass()
        return inner.release(...args)
      },
    }
    const { app, warnings } = await createApp((_request, reply) => reply.code(503).send(), {
      store,
      storeTimeoutMs: 20,
    })
    await post(app)
    await until(async () => (await inner.claim('key', 'v1:f', 'other')).state === 'new')
    expect(warnings).toEqual(['a key could not be released; trying again'])
    gate.open()
  })

  test('is not needed for a claim that was not sent', async () => {
    const failing = createFailingStore(0)
    const claim = () => Promise.reject(new NotSentError('not sent'))
    const { app } = await createApp(() => 'done', { store: { ...failing.store, claim } })
    expect((await post(app)).statusCode).toBe(503)
    await app.close()
    expect(failing.calls).toBe(0)
  })

  test('is not repeated after its application has closed', async () => {
    const failing = createFailingStore(Number.POSITIVE_INFINITY)
    const { app } = await createApp((_request, reply) => reply.code(503).send(), {
      store: failing.store,
    })
    await post(app)
    await app.close()
    const { calls } = failing
    vi.useFakeTimers()
    onTestFinished(() => void vi.useRealTimers())
    await vi.advanceTimersByTimeAsync(LEASE_MS)
    expect(failing.calls).toBe(calls)
  })
})

describe.runIf(redisServer !== undefined)('after Redis was frozen', () => {
  const clients = {
    'ioredis 5 without time limits': (url: string) =>
      new (OldestRedis as unknown as typeof Redis)(url),
    'ioredis without time limits': (url: string) => new Redis(url),
    'ioredis whose commands time out': (url: string) =>
      new Redis(url, {
        commandTimeout: 100,
        maxRetriesPerRequest: 1,
        enableOfflineQueue: false,
        autoResendUnfulfilledCommands: false,
      }),
  }
  test.each(Object.entries(clients))(
    'each key whose request got 503 can be used at once, with %s',
    async (_name, connect) => {
      const server = await startPrivateRedis()
      const redis = connect(server.url)
      redis.on('error', () => {})
      onTestFinished(async () => {
        redis.disconnect()
        await server.stop()
      })
      await until(() => redis.status === 'ready')
      const { app, runs } = await createApp(() => 'done', {
        store: createRedisStore(redis, { leaseMs: LEASE_MS, ttlMs: TTL_MS }),
        storeTimeoutMs: 300,
      })
      const keys = ['1', '2', '3', '4', '5', '6']
      const send = (key: string) => post(app, { a: 1 }, { 'idempotency-key': key })
      server.freeze()
      const refused: number[] = []
      for (const key of keys) {
        void send(key).then(({ statusCode }) => refused.push(statusCode))
        await new Promise(setImmediate) // each claim in a call of its own
      }
      await until(() => refused.length === keys.length)
      expect(refused).toEqual(keys.map(() => 503))
      server.thaw()
      // Within `until`, which waits for half a lease.
      for (const key of keys) await until(async () => (await send(key)).statusCode === 200)
      for (const key of keys) expect(isReplayed(await send(key))).toBe(true)
      expect(runs()).toBe(keys.length)
    },
  )
})

describe.runIf(hasRedis)('the claims that wait in the queue of the Redis store', () => {
  test('are not sent after their time', async () => {
    const { redis } = await emptyRedisSpace()
    const store = createRedisStore(redis, { leaseMs: LEASE_MS, ttlMs: TTL_MS })
    const sent = store.claim('sent', 'v1:f', 'token', performance.now() + 60_000)
    const late = store.claim('late', 'v1:f', 'token', performance.now() - 1)
    await expect(late).rejects.toThrow(NotSentError)
    expect(await sent).toEqual({ state: 'new' })
    expect(await redis.keys('*')).toEqual(['idemp:sent'])
  })
})
