import { describe, expect, test } from 'vitest'
import { type SendOptions, sendOrder } from '../../src/client/send-order.ts'
import { sign, signOrder } from '../../src/client/sign.ts'
import { newKey, ORDER, SECRET, send } from '../support/client.ts'
import { createGate, heldBy } from '../support/gate.ts'
import { startService } from '../support/service.ts'
import { until } from '../support/until.ts'
import {
  answers,
  breaksOff,
  created,
  hangs,
  ORDER_ID,
  refuses,
  resets,
  type Step,
  startScriptedServer,
} from './scripted-server.ts'

/** White space and a letter beyond ASCII: bytes that a parser would not give back. */
const BYTES = new TextEncoder().encode(' {"amount":5e2, "item":"büch",\n"user_id":"user-1"} ')

/** A clock that only waiting moves, and dice that always show the middle. */
function fakeTime() {
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

/** Sends an order to a server that follows a script, without really waiting in between. */
async function sendTo(script: Step[], options: Partial<SendOptions> = {}) {
  const { url, requests } = await startScriptedServer(...script)
  const time = fakeTime()
  const key = newKey()
  const order = signOrder(url, key, BYTES, SECRET)
  const outcome = await sendOrder(order, { ...time.options, ...options })
  return { key, requests, waits: time.waits, ...outcome }
}

function expectSameRequests({ key, requests }: Awaited<ReturnType<typeof sendTo>>) {
  const signature = sign(BYTES, SECRET)
  for (const request of requests) {
    expect(request).toEqual({
      path: 'POST /orders',
      key,
      signature,
      body: Buffer.from(BYTES),
    })
  }
}

describe('what may pass is sent again, with the same key and bytes:', () => {
  test.each<[string, Step, object]>([
    ['a connection that is reset', resets, { error: expect.stringMatching(/^fetch failed: /) }],
    ['an answer that breaks off', breaksOff, { error: expect.stringMatching(/^terminated/) }],
    ['408', refuses(408, 'request-timeout'), { status: 408, code: 'request-timeout' }],
    [
      '409 request-in-progress',
      refuses(409, 'request-in-progress'),
      { status: 409, code: 'request-in-progress' },
    ],
    ['429', refuses(429, 'rate-limit-exceeded'), { status: 429, code: 'rate-limit-exceeded' }],
    ['500', refuses(500, 'internal-error'), { status: 500, code: 'internal-error' }],
    ['502 of a proxy', (response) => response.writeHead(502).end('<html>'), { status: 502 }],
    ['503', refuses(503, 'overloaded'), { status: 503, code: 'overloaded' }],
  ])('%s', async (_, step, attempt) => {
    const sent = await sendTo([step, step, created])
    expect(sent.last).toMatchObject({ status: 201, order: { id: ORDER_ID }, replayed: false })
    expect(sent.gaveUp).toBeUndefined()
    expect(sent.attempts).toMatchObject([attempt, attempt, { status: 201 }])
    expect(sent.requests).toHaveLength(3)
    expectSameRequests(sent)
  })

  test('a request without an answer in time', async () => {
    const sent = await sendTo([hangs, created], { timeoutMs: 1000 })
    expect(sent.attempts).toMatchObject([{ error: 'no answer within 1 s' }, { status: 201 }])
    expectSameRequests(sent)
  })
})

describe('an answer that stands is not asked for again:', () => {
  test.each<[string, Step]>([
    ['400', refuses(400, 'invalid-body')],
    ['401', refuses(401, 'signature-invalid')],
    ['404', refuses(404, 'not-found')],
    ['405', refuses(405, 'method-not-allowed')],
    ['409 idempotency-key-reused', refuses(409, 'idempotency-key-reused')],
    ['413', refuses(413, 'body-too-large')],
    ['415', refuses(415, 'unsupported-media-type')],
    ['422', refuses(422, 'idempotency-key-reused')],
    ['a redirect', answers(308, {}, { location: '/elsewhere' })],
    ['201 without an order', answers(201, { order: {} })],
    ['200 of something else', (response) => response.end('null')],
  ])('%s', async (_, step) => {
    const { attempts, last, gaveUp, requests } = await sendTo([step])
    expect(requests).toHaveLength(1)
    expect(attempts).toEqual([expect.not.objectContaining({ waitMs: expect.anything() })])
    expect(last).toMatchObject({ order: undefined })
    expect(gaveUp).toBeUndefined()
  })
})

describe('the wait for the next attempt', () => {
  test('grows with every failure', async () => {
    const { waits, attempts } = await sendTo([resets, resets, resets, created])
    expect(waits).toEqual([100, 200, 400])
    expect(attempts.map(({ waitMs }) => waitMs)).toEqual([100, 200, 400, undefined])
  })

  test('is what Retry-After asks for in seconds, and a little more', async () => {
    const limited = refuses(429, 'rate-limit-exceeded', { 'retry-after': '7' })
    expect((await sendTo([limited, created])).waits).toEqual([7100])
  })

  test('is what Retry-After asks for with a date, and a little more', async () => {
    const closing = refuses(503, 'shutting-down', {
      'retry-after': 'Thu, 01 Jan 2026 00:00:20 GMT',
    })
    expect((await sendTo([closing, created])).waits).toEqual([20_100])
  })

  test('is told before it begins', async () => {
    const told: unknown[] = []
    await sendTo([refuses(503, 'overloaded'), created], {
      sleep: async (ms) => void told.push(`waits ${ms}`),
      onAttempt: ({ at, status, waitMs }) => told.push({ at, status, waitMs }),
    })
    const at = '2026-01-01T00:00:00.000Z'
    expect(told).toEqual([
      { at, status: 503, waitMs: 100 },
      'waits 100',
      { at, status: 201, waitMs: undefined },
    ])
  })
})

describe('it gives up', () => {
  test('after as many attempts as are allowed', async () => {
    const { requests, waits, ...outcome } = await sendTo([refuses(503, 'overloaded')], {
      maxAttempts: 3,
    })
    expect(outcome).toMatchObject({ gaveUp: 'maxAttempts', last: { code: 'overloaded' } })
    expect(requests).toHaveLength(3)
    expect(waits).toHaveLength(2)
  })

  test('rather than wait for an attempt that would come too late', async () => {
    const limited = refuses(429, 'rate-limit-exceeded', { 'retry-after': '25' })
    const { requests, waits, gaveUp } = await sendTo([limited], { maxTimeMs: 60_000 })
    expect(gaveUp).toBe('maxTimeMs')
    expect(requests).toHaveLength(3)
    expect(waits).toEqual([25_100, 25_200])
  })

  test('in the middle of an attempt when the time is over', async () => {
    const { url } = await startScriptedServer(hangs)
    const order = signOrder(url, newKey(), BYTES, SECRET)
    const { attempts, last, gaveUp } = await sendOrder(order, { maxTimeMs: 100, random: () => 0.5 })
    expect(attempts).toHaveLength(1)
    expect(last).toEqual({ error: expect.stringMatching(/^no answer within 0\.\d+ s$/) })
    expect(gaveUp).toBe('maxTimeMs')
  })

  test('but takes an answer that comes with the last attempt', async () => {
    const { gaveUp, last } = await sendTo([resets, created], { maxAttempts: 2 })
    expect(last).toMatchObject({ status: 201 })
    expect(gaveUp).toBeUndefined()
  })
})

test('what cannot be sent at all is an error at once', () => {
  expect(() => signOrder('no url', 'key', BYTES, SECRET)).toThrow(TypeError)
  expect(() => signOrder('http://127.0.0.1', 'a\nb', BYTES, SECRET)).toThrow(TypeError)
})

describe('from the service', () => {
  const orderFor = (port: number, key: string, body: object = ORDER) =>
    signOrder(
      `http://127.0.0.1:${port}/`,
      key,
      new TextEncoder().encode(JSON.stringify(body)),
      SECRET,
    )

  test('it gets a new order, and the same again as a replay', async () => {
    const { port, countOrders } = await startService()
    const key = newKey()
    const first = await sendOrder(orderFor(port, key))
    expect(first).toMatchObject({
      attempts: [{ status: 201 }],
      last: { order: { ...ORDER, idempotency_key: key }, replayed: false },
    })
    const again = await sendOrder(orderFor(port, key))
    expect(again.last).toMatchObject({
      replayed: true,
      body: 'body' in first.last && first.last.body,
    })
    expect(await countOrders()).toBe(1)
  })

  test('it gets a refusal of another order under the same key', async () => {
    const { port } = await startService()
    const key = newKey()
    await sendOrder(orderFor(port, key))
    const other = await sendOrder(orderFor(port, key, { ...ORDER, amount: 1 }))
    expect(other).toMatchObject({
      attempts: [{ status: 409, code: 'idempotency-key-reused' }],
      last: { order: undefined, detail: expect.stringContaining('another request') },
    })
  })

  test('it gets the order that was committed before the answer was lost', async () => {
    let losses = 1
    const { port, countOrders } = await startService({
      orders: (orders) => ({
        ...orders,
        insertOnce: async (order) => {
          const result = await orders.insertOnce(order)
          if (losses-- > 0) throw new Error('connection lost after the commit')
          return result
        },
      }),
    })
    const { attempts, last } = await sendOrder(orderFor(port, newKey()), fakeTime().options)
    expect(attempts).toMatchObject([{ status: 500 }, { status: 201 }])
    expect(last).toMatchObject({ replayed: true })
    expect(await countOrders()).toBe(1)
  })

  test('it gets the answer of the request ahead of it', async () => {
    const gate = createGate()
    const { port, countOrders } = await startService({
      orders: heldBy(gate),
    })
    const key = newKey()
    const ahead = send(port, { key })
    await until(() => gate.arrived === 1)
    const { attempts, last } = await sendOrder(orderFor(port, key), {
      sleep: async () => {
        gate.open()
        await ahead
      },
    })
    expect(attempts[0]).toMatchObject({ status: 409, code: 'request-in-progress' })
    expect(last).toMatchObject({ status: 201, body: (await ahead).text, replayed: true })
    expect(await countOrders()).toBe(1)
  })
})
