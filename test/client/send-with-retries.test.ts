import { describe, expect, test } from 'vitest'
import { computeRetryAfterSeconds } from '../../packages/idempotency/src/lease.ts'
import { computeBackOffMs } from '../../src/client/back-off.ts'
import { DEFAULTS, type SendOptions, sendWithRetries } from '../../src/client/send-with-retries.ts'
import { createSecretSigner, sign, signOrder } from '../../src/client/sign.ts'
import { parseSettings } from '../../src/settings.ts'
import { newKey, ORDER, SECRET, send } from '../support/client.ts'
import { createGate, delayInserts } from '../support/gate.ts'
import { startService } from '../support/service.ts'
import { until } from '../support/until.ts'
import {
  neverRespond,
  ORDER_ID,
  refuseWith,
  resetConnection,
  respondCreated,
  respondWith,
  respondWithHtml,
  type Step,
  startScriptedServer,
  truncateResponse,
} from './scripted-server.ts'

/** Has white space and a letter outside ASCII: to parse and format it would change the bytes. */
const BYTES = new TextEncoder().encode(' {"amount":5e2, "item":"büch",\n"user_id":"user-1"} ')

const SIGNER = createSecretSigner(SECRET)

/** A clock that only the waits move, and a jitter that is always the mean. */
function createFakeTime() {
  const waits: number[] = []
  let now = Date.UTC(2026, 0, 1)
  const options = {
    random: () => 0.5,
    now: () => now,
    sleep: async (ms: number) => {
      waits.push(ms)
      now += ms
    },
  } satisfies Partial<SendOptions>
  return { waits, options }
}

/** Sends an order to a scripted server. The waits take no time. */
async function sendTo(script: Step[], options: Partial<SendOptions> = {}) {
  const { url, requests } = await startScriptedServer(...script)
  const time = createFakeTime()
  const key = newKey()
  const order = signOrder(url, key, BYTES, SIGNER)
  const outcome = await sendWithRetries(order, { ...time.options, ...options })
  return { key, requests, waits: time.waits, ...outcome }
}

function expectSameRequests({ key, requests }: Awaited<ReturnType<typeof sendTo>>) {
  const signature = sign(BYTES, SECRET)
  for (const request of requests) {
    expect(request).toMatchObject({
      path: 'POST /orders',
      key,
      signature,
      body: Buffer.from(BYTES),
    })
  }
}

describe('a transient failure is retried with the same key and the same bytes:', () => {
  test.each<[string, Step, object]>([
    [
      'a connection that is reset',
      resetConnection,
      { error: expect.stringMatching(/^fetch failed: /) },
    ],
    ['a truncated response', truncateResponse, { error: expect.stringMatching(/^terminated/) }],
    ['408', refuseWith(408, 'request-timeout'), { status: 408, code: 'request-timeout' }],
    [
      '409 request-in-progress',
      refuseWith(409, 'request-in-progress'),
      { status: 409, code: 'request-in-progress' },
    ],
    ['429', refuseWith(429, 'rate-limit-exceeded'), { status: 429, code: 'rate-limit-exceeded' }],
    ['500', refuseWith(500, 'internal-error'), { status: 500, code: 'internal-error' }],
    ['502 of a proxy', respondWithHtml, { status: 502 }],
    ['503', refuseWith(503, 'overloaded'), { status: 503, code: 'overloaded' }],
  ])('%s', async (_, step, attempt) => {
    const sent = await sendTo([step, step, respondCreated])
    expect(sent.last).toMatchObject({ status: 201, order: { id: ORDER_ID }, replayed: false })
    expect(sent.stopReason).toBeUndefined()
    expect(sent.attempts).toMatchObject([attempt, attempt, { status: 201 }])
    expect(sent.requests).toHaveLength(3)
    expectSameRequests(sent)
  })

  test('a request without a response in time', async () => {
    const sent = await sendTo([neverRespond, respondCreated], { timeoutMs: 1000 })
    expect(sent.attempts).toMatchObject([{ error: 'no response within 1 s' }, { status: 201 }])
    expectSameRequests(sent)
  })
})

describe('a final response is not retried:', () => {
  test.each<[string, Step]>([
    ['400', refuseWith(400, 'invalid-body')],
    ['401', refuseWith(401, 'signature-invalid')],
    ['404', refuseWith(404, 'not-found')],
    ['405', refuseWith(405, 'method-not-allowed')],
    ['409 idempotency-key-reused', refuseWith(409, 'idempotency-key-reused')],
    ['413', refuseWith(413, 'body-too-large')],
    ['415', refuseWith(415, 'unsupported-media-type')],
    ['422', refuseWith(422, 'idempotency-key-reused')],
    ['a redirect', respondWith(308, {}, { location: '/elsewhere' })],
    ['201 without an order', respondWith(201, { order: {} })],
    ['200 without an order', (response) => response.end('null')],
  ])('%s', async (_, step) => {
    const { attempts, last, stopReason, requests } = await sendTo([step])
    expect(requests).toHaveLength(1)
    expect(attempts).toEqual([expect.not.objectContaining({ waitMs: expect.anything() })])
    expect(last).toMatchObject({ order: undefined })
    expect(stopReason).toBeUndefined()
  })
})

test('a code or detail of another type than string is ignored', async () => {
  const { last } = await sendTo([respondWith(400, { code: 7, detail: {} })])
  expect(last).toMatchObject({ status: 400, code: undefined, detail: undefined })
})

describe('the wait before a retry', () => {
  test('grows with each failure', async () => {
    const { waits, attempts } = await sendTo([
      resetConnection,
      resetConnection,
      resetConnection,
      respondCreated,
    ])
    expect(waits).toEqual([100, 200, 400])
    expect(attempts.map(({ waitMs }) => waitMs)).toEqual([100, 200, 400, undefined])
  })

  test('is Retry-After in seconds plus the back-off', async () => {
    const refusal = refuseWith(429, 'rate-limit-exceeded', { 'retry-after': '7' })
    expect((await sendTo([refusal, respondCreated])).waits).toEqual([7100])
  })

  test('is Retry-After as a date plus the back-off', async () => {
    const refusal = refuseWith(503, 'shutting-down', {
      'retry-after': 'Thu, 01 Jan 2026 00:00:20 GMT',
    })
    expect((await sendTo([refusal, respondCreated])).waits).toEqual([20_100])
  })

  test('is reported before it begins', async () => {
    const events: unknown[] = []
    await sendTo([refuseWith(503, 'overloaded'), respondCreated], {
      sleep: async (ms) => void events.push(`wait ${ms}`),
      onAttempt: ({ at, status, waitMs }) => events.push({ at, status, waitMs }),
    })
    const at = '2026-01-01T00:00:00.000Z'
    expect(events).toEqual([
      { at, status: 503, waitMs: 100 },
      'wait 100',
      { at, status: 201, waitMs: undefined },
    ])
  })
})

describe('the defaults outlast the lease of a process that was killed after its claim', () => {
  const { leaseMs } = parseSettings({})

  test.each([
    ['at once', 0],
    ['just before its next renewal', leaseMs / 3 - 1],
  ])('even with the shortest waits, when it was killed %s', async (_name, claimedBeforeMs) => {
    const { options, waits } = createFakeTime()
    const leaseEndsAt = options.now() + leaseMs - claimedBeforeMs
    const respond: Step = (response) => {
      const remainingMs = leaseEndsAt - options.now()
      if (remainingMs <= 0) return respondCreated(response)
      const seconds = computeRetryAfterSeconds(remainingMs, leaseMs)
      refuseWith(409, 'request-in-progress', { 'retry-after': `${seconds}` })(response)
    }
    const { attempts, last } = await sendTo([resetConnection, respond], {
      ...options,
      random: () => 0,
    })
    expect(last).toMatchObject({ status: 201 })
    expect(attempts.length).toBeLessThan(DEFAULTS.maxAttempts)
    const total = waits.reduce((sum, ms) => sum + ms, 0)
    expect(total).toBeGreaterThanOrEqual(leaseMs - claimedBeforeMs)
    expect(total).toBeLessThan(leaseMs + 1_000)
  })

  test('by their back-off alone, on average', () => {
    const retries = Array.from({ length: DEFAULTS.maxAttempts - 1 }, (_, i) => i + 1)
    const total = retries.reduce((sum, failures) => sum + computeBackOffMs(failures, () => 0.5), 0)
    expect(total).toBeGreaterThan(2 * leaseMs)
  })
})

describe('sending stops', () => {
  test('after the maximum number of attempts', async () => {
    const { requests, waits, ...outcome } = await sendTo([refuseWith(503, 'overloaded')], {
      maxAttempts: 3,
    })
    expect(outcome).toMatchObject({ stopReason: 'maxAttempts', last: { code: 'overloaded' } })
    expect(requests).toHaveLength(3)
    expect(waits).toHaveLength(2)
  })

  test('before a wait that would exceed the time limit', async () => {
    const refusal = refuseWith(429, 'rate-limit-exceeded', { 'retry-after': '25' })
    const { requests, waits, stopReason } = await sendTo([refusal], { maxTimeMs: 60_000 })
    expect(stopReason).toBe('maxTimeMs')
    expect(requests).toHaveLength(3)
    expect(waits).toEqual([25_100, 25_200])
  })

  test('during an attempt when the time limit is reached', async () => {
    const { url } = await startScriptedServer(neverRespond)
    const order = signOrder(url, newKey(), BYTES, SIGNER)
    const { attempts, last, stopReason } = await sendWithRetries(order, {
      maxTimeMs: 100,
      random: () => 0.5,
    })
    expect(attempts).toHaveLength(1)
    expect(last).toEqual({ error: expect.stringMatching(/^no response within 0\.\d+ s$/) })
    expect(stopReason).toBe('maxTimeMs')
  })

  test('without a stop reason if the last attempt succeeds', async () => {
    const { stopReason, last } = await sendTo([resetConnection, respondCreated], { maxAttempts: 2 })
    expect(last).toMatchObject({ status: 201 })
    expect(stopReason).toBeUndefined()
  })
})

test('an invalid URL or key is an error before the first request', () => {
  expect(() => signOrder('no url', 'key', BYTES, SIGNER)).toThrow(TypeError)
  expect(() => signOrder('http://127.0.0.1', 'a\nb', BYTES, SIGNER)).toThrow(TypeError)
})

describe('from the service the client receives', () => {
  const signNewOrder = (port: number, key: string, body: object = ORDER) =>
    signOrder(
      `http://127.0.0.1:${port}/`,
      key,
      new TextEncoder().encode(JSON.stringify(body)),
      SIGNER,
    )

  test('a new order, then a replay of it', async () => {
    const { port, countOrders } = await startService()
    const key = newKey()
    const first = await sendWithRetries(signNewOrder(port, key))
    expect(first).toMatchObject({
      attempts: [{ status: 201 }],
      last: { order: { ...ORDER, idempotency_key: key }, replayed: false },
    })
    const again = await sendWithRetries(signNewOrder(port, key))
    expect(again.last).toMatchObject({
      replayed: true,
      body: 'body' in first.last && first.last.body,
    })
    expect(await countOrders()).toBe(1)
  })

  test('a refusal of another order with the same key', async () => {
    const { port } = await startService()
    const key = newKey()
    await sendWithRetries(signNewOrder(port, key))
    const other = await sendWithRetries(signNewOrder(port, key, { ...ORDER, amount: 1 }))
    expect(other).toMatchObject({
      attempts: [{ status: 409, code: 'idempotency-key-reused' }],
      last: { order: undefined, detail: expect.stringContaining('another request') },
    })
  })

  test('the order that was committed before its response was lost', async () => {
    let failures = 1
    const { port, countOrders } = await startService({
      wrapOrders: (orders) => ({
        ...orders,
        insertOnce: async (order) => {
          const result = await orders.insertOnce(order)
          if (failures-- > 0) throw new Error('connection lost after the commit')
          return result
        },
      }),
    })
    const { attempts, last } = await sendWithRetries(
      signNewOrder(port, newKey()),
      createFakeTime().options,
    )
    expect(attempts).toMatchObject([{ status: 500 }, { status: 201 }])
    expect(last).toMatchObject({ replayed: true })
    expect(await countOrders()).toBe(1)
  })

  test('the response of a request that was in flight', async () => {
    const gate = createGate()
    const { port, countOrders } = await startService({
      wrapOrders: delayInserts(gate),
    })
    const key = newKey()
    const first = send(port, { key })
    await until(() => gate.arrived === 1)
    const { attempts, last } = await sendWithRetries(signNewOrder(port, key), {
      sleep: async () => {
        gate.open()
        await first
      },
    })
    expect(attempts[0]).toMatchObject({ status: 409, code: 'request-in-progress' })
    expect(last).toMatchObject({ status: 201, body: (await first).text, replayed: true })
    expect(await countOrders()).toBe(1)
  })
})
