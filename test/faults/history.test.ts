/** True histories of a key pass the check, and each kind of false one is found. */
import { describe, expect, test } from 'vitest'
import { checkHistory, type Exchange, IN_PROGRESS, REUSED } from './history.ts'

const TEA = createBody('tea')
const BOOK = createBody('book')
const TEA_ORDER = createResponse('id-1', 'tea')
const BOOK_ORDER = createResponse('id-2', 'book')

function createBody(item: string): string {
  return JSON.stringify({ user_id: 'user-1', item, amount: 500 })
}

function createResponse(id: string, item: string): string {
  const created_at = '2026-03-22T12:37:20.123Z'
  return JSON.stringify({
    order: { id, user_id: 'user-1', item, amount: 500, idempotency_key: 'key', created_at },
  })
}

/** A request that was in flight from `sentAt` to `endedAt`. */
function exchange(
  sentAt: number,
  endedAt: number,
  body: string,
  result: string,
  created?: Exchange['created'],
): Exchange {
  return { key: 'key', instance: 0, sentAt, endedAt, body, result, ...(created && { created }) }
}

const first = (sentAt: number, endedAt: number, response = TEA_ORDER, body = TEA) =>
  exchange(sentAt, endedAt, body, '201', { response, isReplay: false })

const replay = (sentAt: number, endedAt: number, response = TEA_ORDER, body = TEA) =>
  exchange(sentAt, endedAt, body, '201', { response, isReplay: true })

describe('a history passes if', () => {
  const HISTORIES: [string, Exchange[]][] = [
    ['an order is created and replayed', [first(0, 1), replay(2, 3), replay(4, 5)]],
    ['a replay overtakes the first response', [first(0, 9), replay(1, 2)]],
    ['the first response was lost', [exchange(0, 1, TEA, 'ECONNRESET'), replay(2, 3)]],
    [
      'the order was created before a 500',
      [exchange(0, 1, TEA, '500 internal-error'), replay(2, 3)],
    ],
    ['a failed request creates the order late', [exchange(0, 1, TEA, 'timed out'), replay(8, 9)]],
    ['a duplicate is refused during the first', [first(0, 9), exchange(1, 2, TEA, IN_PROGRESS)]],
    [
      'a duplicate is refused although the first failed: its claim may live on',
      [exchange(0, 1, TEA, 'ECONNRESET'), exchange(2, 3, TEA, IN_PROGRESS), first(4, 5)],
    ],
    ['a duplicate is refused and ends last', [first(0, 2), exchange(1, 9, TEA, IN_PROGRESS)]],
    ['another body is refused later', [first(0, 1), exchange(2, 3, BOOK, REUSED)]],
    ['another body is refused meanwhile', [first(0, 9), exchange(1, 2, BOOK, REUSED)]],
    [
      'the body of the order is refused while another body holds the key, which then fails',
      [exchange(0, 4, BOOK, '500 internal-error'), exchange(1, 2, TEA, REUSED), first(5, 6)],
    ],
    [
      'of two bodies the second one wins',
      [exchange(0, 9, BOOK, REUSED), first(1, 8), exchange(10, 11, BOOK, REUSED)],
    ],
  ]
  test.each(HISTORIES)('%s', (_name, exchanges) => {
    expect(checkHistory(exchanges, [TEA_ORDER])).toEqual([])
  })
})

describe('a history is', () => {
  const HISTORIES: [string, string, Exchange[], string[]][] = [
    ['lost', 'the order of a 201 is not stored', [first(0, 1)], []],
    ['doubled', 'two orders are stored', [first(0, 1)], [TEA_ORDER, BOOK_ORDER]],
    ['doubled', 'two responses are first ones', [first(0, 1), first(2, 3)], [TEA_ORDER]],
    [
      'doubled',
      'a replay has another id',
      [first(0, 1), replay(2, 3, createResponse('id-3', 'tea'))],
      [TEA_ORDER],
    ],
    [
      'doubled',
      'a replay has other bytes',
      [first(0, 1), replay(2, 3, `${TEA_ORDER} `)],
      [TEA_ORDER],
    ],
    ['invented', 'an order has a key that was never sent', [], [TEA_ORDER]],
    ['invented', 'the order is not what was sent', [exchange(0, 1, TEA, 'EPIPE')], [BOOK_ORDER]],
    [
      'invented',
      'the order is not that of the responses',
      [first(0, 1), replay(2, 3)],
      [createResponse('id-3', 'tea')],
    ],
    ['invented', 'the only request was refused', [exchange(0, 1, TEA, REUSED)], [TEA_ORDER]],
    ['invented', 'all responses are replays', [replay(0, 1), replay(2, 3)], [TEA_ORDER]],
    [
      'unexplained',
      'a replay ends before the first is sent',
      [replay(0, 1), first(2, 3)],
      [TEA_ORDER],
    ],
    [
      'unexplained',
      'a replay ends before the failed request that made the order is sent',
      [replay(0, 1), exchange(2, 3, TEA, 'ECONNRESET')],
      [TEA_ORDER],
    ],
    [
      'unexplained',
      'a replay ends before the first is sent, though an earlier request failed',
      [exchange(0, 1, TEA, 'ECONNRESET'), replay(2, 3), first(4, 5)],
      [TEA_ORDER],
    ],
    [
      'unexplained',
      'another body gets the order',
      [first(0, 1), replay(2, 3, TEA_ORDER, BOOK)],
      [TEA_ORDER],
    ],
    [
      'unexplained',
      'a body is refused without a rival',
      [exchange(0, 1, TEA, REUSED), first(2, 3)],
      [TEA_ORDER],
    ],
    [
      'unexplained',
      'a body is refused because of a rival that is sent later',
      [exchange(0, 1, TEA, REUSED), first(2, 3), exchange(4, 5, BOOK, REUSED)],
      [TEA_ORDER],
    ],
    [
      'unexplained',
      'the body of the order is refused after its 201',
      [exchange(0, 9, BOOK, REUSED), first(1, 2), exchange(3, 4, TEA, REUSED)],
      [TEA_ORDER],
    ],
    [
      'unexplained',
      'a request is in progress alone',
      [exchange(0, 1, TEA, IN_PROGRESS), first(2, 3)],
      [TEA_ORDER],
    ],
    [
      'unexplained',
      'two requests are in progress because of each other',
      [exchange(0, 3, TEA, IN_PROGRESS), exchange(1, 2, TEA, IN_PROGRESS), first(4, 5)],
      [TEA_ORDER],
    ],
    [
      'unexplained',
      'only another body can be in progress',
      [exchange(0, 9, BOOK, REUSED), exchange(1, 2, TEA, IN_PROGRESS), first(3, 4)],
      [TEA_ORDER],
    ],
    [
      'unexplained',
      'a request is in progress after the 201',
      [first(0, 1), exchange(2, 3, TEA, IN_PROGRESS)],
      [TEA_ORDER],
    ],
    ['unfinished', 'no request got a 201', [exchange(0, 1, TEA, 'ECONNREFUSED')], []],
  ]
  test.each(HISTORIES)('%s if %s', (kind, _name, exchanges, stored) => {
    expect(checkHistory(exchanges, stored).map((violation) => violation.kind)).toContain(kind)
  })
})
