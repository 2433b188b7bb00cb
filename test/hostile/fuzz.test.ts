import { Agent, type IncomingMessage, request } from 'node:http'
import fc from 'fast-check'
import { describe, expect, onTestFinished, test } from 'vitest'
import { PROBLEMS, type ProblemCode } from '../../src/http/problems.ts'
import { newKey } from '../support/client.ts'
import { startService } from '../support/service.ts'
import { NEW_KEY, withAnyBody, withAnyHeaders, withAnyPath } from './arbitraries.ts'
import {
  expectCreated,
  expectProblem,
  isAmount,
  isKey,
  isText,
  judge,
  linesOf,
  type Order,
  type WireAnswer,
  type WireRequest,
} from './contract.ts'

/** 21 000 requests together: less than half a minute on two cores with nothing else to do. */
const BODIES = 10_000
const HEADERS = 7_000
const PATHS = 4_000

/** So many cases at once, each on a connection of its own: the stores are never idle. */
const LANES = 8

/** A hang is no answer in this time, on the slowest of machines. */
const HANG_MS = 20_000

/** For tests of many thousand requests. */
const TEST_MS = 180_000

/** Small, so that bodies beyond it are small, too; orders of 255 characters of any kind fit in. */
const MAX_BODY_BYTES = 4_096

const UUID = /^[0-9a-f-]{36}$/

/** Starts a service to be fuzzed, and remembers every order that it created. */
async function startTarget() {
  const { port, database, logLines } = await startService({
    env: {
      MAX_BODY_BYTES: `${MAX_BODY_BYTES}`,
      // Wrong signatures are part of the fuzz and get 401; how they are limited is not.
      SIGNATURE_FAILURES_MAX: '1000000000',
      RATE_LIMIT_MAX: '1000000000',
      IDEMPOTENCY_STORE: 'memory',
      LOG_LEVEL: 'error',
    },
  })
  const agent = new Agent({ keepAlive: true, maxSockets: LANES })
  onTestFinished(() => agent.destroy())

  const created = new Map<string, { order: Order; text: string }>()
  const tally = new Map<string, number>()
  const atWork = new Map<string, Promise<unknown>>()

  const exchange = (given: WireRequest) => send(port, agent, given)

  /** Keeps count of what was judged how, so that no kind of it is missing unnoticed. */
  function count(judgement: string): void {
    tally.set(judgement, (tally.get(judgement) ?? 0) + 1)
  }

  /** Refused, and for the right reason. */
  async function expectRefusal(given: WireRequest, code: ProblemCode): Promise<WireAnswer> {
    count(code)
    const answer = await exchange(given)
    if (given.method === 'HEAD') expect(answer.status).toBe(PROBLEMS[code].status)
    else expectProblem(answer, code)
    return answer
  }

  /** Created, replayed, or refused because of the order that the key has. */
  async function expectOrder(given: WireRequest, key: string, order: Order): Promise<WireAnswer> {
    const first = created.get(key)
    if (first && JSON.stringify(first.order) !== JSON.stringify(order)) {
      return expectRefusal(given, 'idempotency-key-reused')
    }
    count(first ? 'replayed' : 'created')
    const answer = await exchange(given)
    expectCreated(answer, key, order)
    expect(answer.headers['idempotency-replayed']).toBe(first && 'true')
    if (first) expect(answer.text).toBe(first.text)
    else created.set(key, { order, text: answer.text })
    return answer
  }

  /** The answer to `POST /orders` is what the contract says, whatever was sent. */
  async function expectJudgement(given: WireRequest): Promise<WireAnswer> {
    const judgement = judge(given, MAX_BODY_BYTES)
    if ('code' in judgement) return expectRefusal(given, judgement.code)
    const { key, order } = judgement
    // One at a time under a key, or whose order it is would be left to chance.
    const answer = (atWork.get(key) ?? Promise.resolve())
      .catch(() => {})
      .then(() => expectOrder(given, key, order))
    atWork.set(key, answer)
    return answer
  }

  /** The table holds the orders that were answered with 201, and every one of them is valid. */
  async function expectRows(): Promise<void> {
    const rows = await database.sql`
      select idempotency_key as key, user_id, item, amount::text as written from orders`
    const stored = rows.map(({ key, user_id, item, written }) => {
      const amount = Number(written)
      const isValid = isKey(key) && isText(user_id) && isText(item) && isAmount(amount)
      expect({ written, isValid }).toEqual({ written: amount.toFixed(4), isValid: true })
      return [key, { user_id, item, amount }] as const
    })
    const answered = [...created].map(([key, { order }]) => [key, order] as const)
    expect(new Map(stored)).toEqual(new Map(answered))
    expect(logLines).toEqual([]) // at level error
  }
  return { exchange, expectJudgement, expectRefusal, expectRows, tally, count }
}

/** A copy of the request, with a new key where one belongs. */
function withNewKey(given: WireRequest): WireRequest {
  const key = newKey()
  const headers = given.headers.map(([name, value]): [string, string] => [
    name,
    value.replace(NEW_KEY, key),
  ])
  return { ...given, headers }
}

/** Sends a request as it is and reads its answer to the end. */
function send(port: number, agent: Agent, { method, path, headers, body }: WireRequest) {
  return new Promise<WireAnswer>((resolve, reject) => {
    const outgoing = request({
      host: '127.0.0.1',
      port,
      agent,
      method,
      path,
      // An array is sent line by line, without any header of Node's own.
      headers: ['Host', '127.0.0.1', ...headers.flat()],
      timeout: HANG_MS,
    })
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer in ${HANG_MS} ms`)))
    outgoing.on('error', reject)
    outgoing.on('response', async (response: IncomingMessage) => {
      const chunks = await response.toArray().catch(reject)
      const text = Buffer.concat(chunks ?? []).toString()
      resolve({ status: response.statusCode ?? 0, headers: response.headers, text })
    })
    outgoing.end(body)
  })
}

/**
 * Runs the property on so many cases.
 *
 * A failure names its seed and its path, with which `fc.assert` runs it again.
 */
async function fuzz(
  runs: number,
  cases: fc.Arbitrary<WireRequest>,
  property: (given: WireRequest) => Promise<unknown>,
): Promise<void> {
  const lanes = Array.from({ length: LANES }, () =>
    fc.assert(
      fc.asyncProperty(cases, async (given) => void (await property(withNewKey(given)))),
      { numRuns: runs / LANES },
    ),
  )
  // All come to their end before the service closes.
  const failed = (await Promise.allSettled(lanes)).find(({ status }) => status === 'rejected')
  if (failed?.status === 'rejected') throw failed.reason
}

/** None of these kinds of cases was rare: arbitraries that lost one would prove nothing of it. */
function expectKinds(tally: Map<string, number>, least: number, kinds: string[]): void {
  const rare = kinds.filter((kind) => (tally.get(kind) ?? 0) < least)
  expect({ rare, tally }).toEqual({ rare: [], tally })
}

describe('whatever is sent', () => {
  test(
    'a body is an order if the contract says so, and else is refused as invalid',
    async () => {
      const { expectJudgement, expectRows, tally } = await startTarget()
      await fuzz(BODIES, withAnyBody, expectJudgement)
      await expectRows()
      expectKinds(tally, BODIES / 100, ['created', 'invalid-body'])
      expectKinds(tally, 1, ['body-too-large'])
    },
    TEST_MS,
  )

  test(
    'headers lead to an order, to its replay, or to the refusal of the first that is wrong',
    async () => {
      const { expectJudgement, expectRows, tally } = await startTarget()
      await fuzz(HEADERS, withAnyHeaders, async (given) => {
        const { headers } = await expectJudgement(given)
        const id = String(headers['x-request-id'])
        const sent = linesOf(given, 'x-request-id')
        // Two lines are no id; what is no UUID may be taken or not.
        const isSent = sent.length === 1 && sent[0] === id
        const mustBeSent = sent.length === 1 && UUID.test(sent[0] ?? '')
        expect({ id, isFine: isSent || (!mustBeSent && UUID.test(id)) }).toEqual({
          id,
          isFine: true,
        })
        expect(headers['preference-applied'] ?? 'wait=0').toMatch(/^wait=([12]?\d|30)$/)
      })
      await expectRows()
      expectKinds(tally, HEADERS / 400, [
        ...['created', 'replayed', 'idempotency-key-reused', 'invalid-body'],
        ...['signature-missing', 'signature-invalid', 'unsupported-media-type'],
        ...['idempotency-key-missing', 'idempotency-key-invalid'],
      ])
    },
    TEST_MS,
  )

  test(
    'a path is known, unknown or malformed, and takes a method or does not',
    async () => {
      const { exchange, expectJudgement, expectRefusal, expectRows, count, tally } =
        await startTarget()
      await fuzz(PATHS, withAnyPath, async (given) => {
        const { method } = given
        const place = placeOf(given.path)
        if (place === 'orders') {
          return method === 'POST'
            ? expectJudgement(given)
            : expectRefusal(given, 'method-not-allowed')
        }
        if (place !== 'page' && place !== 'no page') return expectRefusal(given, place)
        if (method !== 'GET' && method !== 'HEAD') return expectRefusal(given, 'method-not-allowed')
        if (place === 'no page') return expectRefusal(given, 'not-found')
        count('page')
        const { status, headers } = await exchange(given)
        expect(status).toBe(200)
        return expect(headers['content-type']).toMatch(
          /^(text\/html|application\/json); charset=utf-8$/,
        )
      })
      await expectRows()
      expectKinds(tally, 10, [
        ...['created', 'page', 'not-found', 'method-not-allowed', 'bad-request'],
        'headers-too-large',
      ])
    },
    TEST_MS,
  )
})

/** What is at a path: orders, the front page or that of a problem, or the reason why there is nothing. */
function placeOf(path: string): 'orders' | 'page' | 'no page' | ProblemCode {
  // Longer than all the headers that Node reads.
  if (path.length > 16 * 1024) return 'headers-too-large'
  // A URI is visible ASCII (RFC 3986).
  if (!/^[!-~]*$/.test(path)) return 'bad-request'
  const [target = ''] = path.split(/[?#]/)
  try {
    const [, first, code, ...more] = target.split('/').map(decodeURIComponent)
    if (target === '/') return 'page'
    if (code === undefined) return first === 'orders' ? 'orders' : 'not-found'
    if (first !== 'problems' || more.length > 0) return 'not-found'
    return Object.hasOwn(PROBLEMS, code) ? 'page' : 'no page'
  } catch {
    return 'bad-request'
  }
}
