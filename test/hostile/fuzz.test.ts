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
  getHeaderLines,
  isAmount,
  isKey,
  isText,
  judge,
  type Order,
  type WireRequest,
  type WireResponse,
} from './contract.ts'

/** 21 000 requests together: less than half a minute on two cores with nothing else to do. */
const BODIES = 10_000
const HEADERS = 7_000
const PATHS = 4_000

/** Cases at the same time, each on a connection of its own: the stores are never idle. */
const CONCURRENCY = 8

/** Long enough for the slowest machine: a later response is a hang. */
const HANG_MS = 20_000

/** For tests of many thousand requests. */
const TEST_MS = 180_000

/** Small, so that larger bodies are small, too; but orders with 255 characters of any kind fit. */
const MAX_BODY_BYTES = 4_096

const UUID = /^[0-9a-f-]{36}$/

/** Starts a service, and keeps every order that it has created. */
async function startTarget() {
  const { port, database, logLines } = await startService({
    env: {
      MAX_BODY_BYTES: `${MAX_BODY_BYTES}`,
      // Wrong signatures are fuzzed, their limit is not.
      SIGNATURE_FAILURES_MAX: '1000000000',
      RATE_LIMIT_MAX: '1000000000',
      IDEMPOTENCY_STORE: 'memory',
      LOG_LEVEL: 'error',
    },
  })
  const agent = new Agent({ keepAlive: true, maxSockets: CONCURRENCY })
  onTestFinished(() => agent.destroy())

  const created = new Map<string, { order: Order; text: string }>()
  const tally = new Map<string, number>()
  const pending = new Map<string, Promise<unknown>>()

  const sendWire = (given: WireRequest) => send(port, agent, given)

  /** Counts the judgements, so that a missing kind is noticed. */
  function count(judgement: string): void {
    tally.set(judgement, (tally.get(judgement) ?? 0) + 1)
  }

  /** Expects a refusal with this code. */
  async function expectRefusal(given: WireRequest, code: ProblemCode): Promise<WireResponse> {
    count(code)
    const response = await sendWire(given)
    if (given.method === 'HEAD') expect(response.status).toBe(PROBLEMS[code].status)
    else expectProblem(response, code)
    return response
  }

  /** Expects an order, its replay, or a refusal because of another order under the key. */
  async function expectOrder(given: WireRequest, key: string, order: Order): Promise<WireResponse> {
    const first = created.get(key)
    if (first && JSON.stringify(first.order) !== JSON.stringify(order)) {
      return expectRefusal(given, 'idempotency-key-reused')
    }
    count(first ? 'replayed' : 'created')
    const response = await sendWire(given)
    expectCreated(response, key, order)
    expect(response.headers['idempotency-replayed']).toBe(first && 'true')
    if (first) expect(response.text).toBe(first.text)
    else created.set(key, { order, text: response.text })
    return response
  }

  /** Expects what the contract says of a `POST /orders`. */
  async function expectJudgement(given: WireRequest): Promise<WireResponse> {
    const judgement = judge(given, MAX_BODY_BYTES)
    if ('code' in judgement) return expectRefusal(given, judgement.code)
    const { key, order } = judgement
    // One request at a time under a key: which one creates the order must be known.
    const response = (pending.get(key) ?? Promise.resolve())
      .catch(() => {})
      .then(() => expectOrder(given, key, order))
    pending.set(key, response)
    return response
  }

  /** Expects that the table has the orders that got 201, all valid, and no others. */
  async function expectRows(): Promise<void> {
    const rows = await database.sql`
      select idempotency_key as key, user_id, item, amount::text as written from orders`
    const stored = rows.map(({ key, user_id, item, written }) => {
      const amount = Number(written)
      const isValid = isKey(key) && isText(user_id) && isText(item) && isAmount(amount)
      expect({ written, isValid }).toEqual({ written: amount.toFixed(4), isValid: true })
      return [key, { user_id, item, amount }] as const
    })
    const expected = [...created].map(([key, { order }]) => [key, order] as const)
    expect(new Map(stored)).toEqual(new Map(expected))
    expect(logLines).toEqual([]) // at level error
  }
  return { sendWire, expectJudgement, expectRefusal, expectRows, tally, count }
}

/** Copies the request, with a new key in place of NEW_KEY. */
function insertNewKey(given: WireRequest): WireRequest {
  const key = newKey()
  const headers = given.headers.map(([name, value]): [string, string] => [
    name,
    value.replace(NEW_KEY, key),
  ])
  return { ...given, headers }
}

/** Sends a request without changes and reads its response to the end. */
function send(port: number, agent: Agent, { method, path, headers, body }: WireRequest) {
  return new Promise<WireResponse>((resolve, reject) => {
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
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no response within ${HANG_MS} ms`)))
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
  const runners = Array.from({ length: CONCURRENCY }, () =>
    fc.assert(
      fc.asyncProperty(cases, async (given) => void (await property(insertNewKey(given)))),
      { numRuns: runs / CONCURRENCY },
    ),
  )
  // All must have ended before the service closes.
  const failed = (await Promise.allSettled(runners)).find(({ status }) => status === 'rejected')
  if (failed?.status === 'rejected') throw failed.reason
}

/** Expects that none of these kinds of cases was rare: otherwise the test would not cover it. */
function expectKinds(tally: Map<string, number>, least: number, kinds: string[]): void {
  const rare = kinds.filter((kind) => (tally.get(kind) ?? 0) < least)
  expect({ rare, tally }).toEqual({ rare: [], tally })
}

describe('any request', () => {
  test(
    'creates an order if its body is valid, and is refused otherwise',
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
    'creates or replays an order if its headers are valid, and is refused for the first that is not',
    async () => {
      const { expectJudgement, expectRows, tally } = await startTarget()
      await fuzz(HEADERS, withAnyHeaders, async (given) => {
        const { headers } = await expectJudgement(given)
        const id = String(headers['x-request-id'])
        const sent = getHeaderLines(given, 'x-request-id')
        // Two lines are no id; an id that is no UUID may be accepted or not.
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
    'gets an order, a page, 404, 405 or 400 for its path and method',
    async () => {
      const { sendWire, expectJudgement, expectRefusal, expectRows, count, tally } =
        await startTarget()
      await fuzz(PATHS, withAnyPath, async (given) => {
        const { method } = given
        const place = classifyPath(given.path)
        if (place === 'orders') {
          return method === 'POST'
            ? expectJudgement(given)
            : expectRefusal(given, 'method-not-allowed')
        }
        if (place !== 'page' && place !== 'no page') return expectRefusal(given, place)
        if (method !== 'GET' && method !== 'HEAD') return expectRefusal(given, 'method-not-allowed')
        if (place === 'no page') return expectRefusal(given, 'not-found')
        count('page')
        const { status, headers } = await sendWire(given)
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

/** Classifies a path: orders, an existing page, a missing page, or the code of its refusal. */
function classifyPath(path: string): 'orders' | 'page' | 'no page' | ProblemCode {
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
