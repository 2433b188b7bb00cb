import { describe, expect, test } from 'vitest'
import { isExactlyOnce, repeatOrder } from '../../src/client/repeat-order.ts'
import { tallyHints, tallyVerdictText } from '../../src/client/report.ts'
import { signOrder } from '../../src/client/sign.ts'
import { newKey, ORDER, SECRET } from '../support/client.ts'
import { startService } from '../support/service.ts'
import { answers, created, hangs, resets, startScriptedServer } from './scripted-server.ts'

const bytes = new TextEncoder().encode(JSON.stringify(ORDER))
const orderFor = (url: string) => signOrder(url, newKey(), bytes, SECRET)
const OPTIONS = { concurrency: 1, timeoutMs: 10_000 }

describe('an order that is sent many times', () => {
  test('at once is created once, and all get one body', async () => {
    const { port, countOrders } = await startService({ env: { IN_FLIGHT_WAIT_SECONDS: '30' } })
    const order = orderFor(`http://127.0.0.1:${port}`)
    const tally = await repeatOrder(order, 30, { ...OPTIONS, concurrency: 8 })
    expect(tally).toMatchObject({ sent: 30, firstAnswers: 1, replays: 29, networkErrors: 0 })
    expect(tally.refusals).toEqual({})
    expect(isExactlyOnce(tally)).toBe(true)
    expect(tallyVerdictText('key', tally)).toBe(
      `Sent 30 times, created once: the order ${tally.orderIds[0]}.`,
    )
    expect(await countOrders()).toBe(1)
  })

  test('is created once, whatever the rate limit refuses, and it is told', async () => {
    const { port, countOrders } = await startService({ env: { RATE_LIMIT_MAX: '3' } })
    const tally = await repeatOrder(orderFor(`http://127.0.0.1:${port}`), 5, OPTIONS)
    expect(tally).toMatchObject({ sent: 5, firstAnswers: 1, replays: 2 })
    expect(tally.refusals).toEqual({ 'rate-limit-exceeded': 2 })
    expect(tallyHints(tally)).toEqual([
      '2 met the rate limit: to let all through, start the service with RATE_LIMIT_MAX=100000.',
    ])
    expect(await countOrders()).toBe(1)
  })

  test('has every answer counted, and none asked for again', async () => {
    const { url, requests } = await startScriptedServer(
      created,
      resets,
      answers(503, { code: 'overloaded' }),
      (response) => response.writeHead(502).end('<html>'),
      hangs,
      answers(201, { order: { id: 'one' } }, { 'idempotency-replayed': 'true' }),
    )
    const done: number[] = []
    const tally = await repeatOrder(orderFor(url), 7, {
      concurrency: 1,
      timeoutMs: 1000,
      onAnswer: (count) => done.push(count),
    })
    expect(tally).toMatchObject({ sent: 7, firstAnswers: 1, replays: 2, networkErrors: 2 })
    expect(tally.refusals).toEqual({ overloaded: 1, 502: 1 })
    expect(done).toEqual([1, 2, 3, 4, 5, 6, 7])
    expect(new Set(requests.map(({ key }) => key)).size).toBe(1)
    expect(requests).toHaveLength(7)
  })

  test('and comes back as two is seen', async () => {
    const { url } = await startScriptedServer(created, answers(201, { order: { id: 'other' } }))
    const tally = await repeatOrder(orderFor(url), 3, OPTIONS)
    expect(isExactlyOnce(tally)).toBe(false)
    expect(tallyVerdictText('key-001', tally)).toBe(
      'NOT exactly once: 2 orders in 2 bodies under the key key-001.',
    )
  })

  test('never has more requests on their way than were asked for', async () => {
    let underway = 0
    let most = 0
    const { url } = await startScriptedServer((response) => {
      most = Math.max(most, ++underway)
      setImmediate(() => {
        underway--
        created(response)
      })
    })
    const tally = await repeatOrder(orderFor(url), 20, { ...OPTIONS, concurrency: 3 })
    expect(tally.sent).toBe(20)
    expect(most).toBeLessThanOrEqual(3)
  })
})
