import { describe, expect, test } from 'vitest'
import { isExactlyOnce, repeatOrder } from '../../src/client/repeat-order.ts'
import { explainRefusals, formatRepeatResult } from '../../src/client/report.ts'
import { createSecretSigner, signOrder } from '../../src/client/sign.ts'
import { newKey, ORDER, SECRET } from '../support/client.ts'
import { startService } from '../support/service.ts'
import {
  neverRespond,
  resetConnection,
  respondCreated,
  respondWith,
  respondWithHtml,
  startScriptedServer,
} from './scripted-server.ts'

const BYTES = new TextEncoder().encode(JSON.stringify(ORDER))
const SIGNER = createSecretSigner(SECRET)
const signNewOrder = (url: string) => signOrder(url, newKey(), BYTES, SIGNER)
const OPTIONS = { concurrency: 1, timeoutMs: 10_000 }

describe('an order that is sent many times', () => {
  test('concurrently is created once, and all responses have the same body', async () => {
    const { port, countOrders } = await startService({ env: { IN_FLIGHT_WAIT_SECONDS: '30' } })
    const order = signNewOrder(`http://127.0.0.1:${port}`)
    const summary = await repeatOrder(order, 30, { ...OPTIONS, concurrency: 8 })
    expect(summary).toMatchObject({ sent: 30, firstResponses: 1, replays: 29, networkErrors: 0 })
    expect(summary.refusals).toEqual({})
    expect(isExactlyOnce(summary)).toBe(true)
    expect(formatRepeatResult('key', summary)).toBe(
      `Sent 30 times, created once: order ${summary.orderIds[0]}.`,
    )
    expect(await countOrders()).toBe(1)
  })

  test('is created once while the rate limit refuses some requests, which is explained', async () => {
    const { port, countOrders } = await startService({ env: { RATE_LIMIT_MAX: '3' } })
    const summary = await repeatOrder(signNewOrder(`http://127.0.0.1:${port}`), 5, OPTIONS)
    expect(summary).toMatchObject({ sent: 5, firstResponses: 1, replays: 2 })
    expect(summary.refusals).toEqual({ 'rate-limit-exceeded': 2 })
    expect(explainRefusals(summary)).toEqual([
      '2 requests exceeded the rate limit. To allow more, start the service with RATE_LIMIT_MAX=100000.',
    ])
    expect(await countOrders()).toBe(1)
  })

  test('is not retried, and each response is counted once', async () => {
    const { url, requests } = await startScriptedServer(
      respondCreated,
      resetConnection,
      respondWith(503, { code: 'overloaded' }),
      respondWithHtml,
      neverRespond,
      respondWith(201, { order: { id: 'one' } }, { 'idempotency-replayed': 'true' }),
    )
    const done: number[] = []
    const summary = await repeatOrder(signNewOrder(url), 7, {
      concurrency: 1,
      timeoutMs: 1000,
      onProgress: (count) => done.push(count),
    })
    expect(summary).toMatchObject({ sent: 7, firstResponses: 1, replays: 2, networkErrors: 2 })
    expect(summary.refusals).toEqual({ overloaded: 1, 502: 1 })
    expect(done).toEqual([1, 2, 3, 4, 5, 6, 7])
    expect(new Set(requests.map(({ key }) => key)).size).toBe(1)
    expect(requests).toHaveLength(7)
  })

  test('and was created twice is reported', async () => {
    const { url } = await startScriptedServer(
      respondCreated,
      respondWith(201, { order: { id: 'other' } }),
    )
    const summary = await repeatOrder(signNewOrder(url), 3, OPTIONS)
    expect(isExactlyOnce(summary)).toBe(false)
    expect(formatRepeatResult('key-001', summary)).toBe(
      'NOT exactly once: 2 orders, 2 different bodies. Idempotency key: key-001',
    )
  })

  test('has no more requests in flight than the concurrency allows', async () => {
    let inFlight = 0
    let maxInFlight = 0
    const { url } = await startScriptedServer((response) => {
      maxInFlight = Math.max(maxInFlight, ++inFlight)
      setImmediate(() => {
        inFlight--
        respondCreated(response)
      })
    })
    const summary = await repeatOrder(signNewOrder(url), 20, { ...OPTIONS, concurrency: 3 })
    expect(summary.sent).toBe(20)
    expect(maxInFlight).toBeLessThanOrEqual(3)
  })
})
