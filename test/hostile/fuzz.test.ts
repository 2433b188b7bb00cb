/** Sends random requests, and compares each response with what the contract predicts. */
import { Agent, type IncomingMessage, request } from 'node:http'
import fc from 'fast-check'
import { describe, expect, onTestFinished, test } from 'vitest'
import { PROBLEMS, type ProblemCode } from '../../src/http/problems.ts'
import { newKey, SECRET } from '../support/client.ts'
import { writeClientsFile } from '../support/clients-file.ts'
import { signMessage } from '../support/message-signature.ts'
import { startService } from '../support/service.ts'
import {
  KEYS,
  NEW_KEY,
  withAnyBody,
  withAnyHeaders,
  withAnyPath,
  withAnySignature,
} from './arbitraries.ts'
import {
  expectCreated,
  expectProblem,
  getHeaderLines,
  type HeaderLine,
  isAmount,
  isKey,
  isText,
  type Order,
  predictOutcome,
  predictSignatureRefusal,
  type WireRequest,
  type WireResponse,
} from './contract.ts'

/** 25 000 requests take less than half a minute on two idle cores. */
const BODY_CASES = 10_000
const HEADER_CASES = 7_000
const PATH_CASES = 4_000
const SIGNATURE_CASES = 4_000

const HOST = '127.0.0.1'

/** Enough to keep the stores busy. */
const CONCURRENT_CASES = 8

/** Longer than any response takes, even on a slow machine. */
const RESPONSE_TIMEOUT_MS = 20_000

/** For tests of many thousand requests. */
const TEST_MS = 180_000

/** Larger than every valid order, and small enough for bodies that exceed it. */
const MAX_BODY_BYTES = 4_096

const UUID = /^[0-9a-f-]{36}$/

/** Starts a service, and keeps every order that it created. */
async function startTarget() {
  const { port, database, logLines } = await startService({
    env: {
      MAX_BODY_BYTES: `${MAX_BODY_BYTES}`,
      // Every wrong signature must get a 401.
      SIGNATURE_FAILURES_MAX: '1000000000',
      RATE_LIMIT_MAX: 'off',
      IDEMPOTENCY_STORE: 'memory',
      LOG_LEVEL: 'error',
      HMAC_SECRET: SECRET,
      CLIENTS_FILE: await writeClientsFile([{ id: 'default', keys: KEYS }]),
    },
  })
  const agent = new Agent({ keepAlive: true, maxSockets: CONCURRENT_CASES })
  onTestFinished(() => agent.destroy())

  const created = new Map<string, { order: Order; text: string }>()
  const counts = new Map<string, number>()
  const lastOfKey = new Map<string, Promise<unknown>>()

  const sendCase = (given: WireRequest) => send(port, agent, given)

  /** Counts the outcomes, so that a kind of them that is missing is noticed. */
  function count(outcome: string): void {
    counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
  }

  async function expectRefusal(given: WireRequest, code: ProblemCode): Promise<WireResponse> {
    count(code)
    const response = await sendCase(given)
    if (given.method === 'HEAD') expect(response.status).toBe(PROBLEMS[code].status)
    else expectProblem(response, code)
    return response
  }

  /** Expects a new order, a replay, or a refusal because the key has another order. */
  async function expectOrder(given: WireRequest, key: string, order: Order): Promise<WireResponse> {
    const first = created.get(key)
    if (first && JSON.stringify(first.order) !== JSON.stringify(order)) {
      return expectRefusal(given, 'idempotency-key-reused')
    }
    count(first ? 'replayed' : 'created')
    const response = await sendCase(given)
    expectCreated(response, key, order)
    expect(response.headers['idempotency-replayed']).toBe(first && 'true')
    if (first) expect(response.text).toBe(first.text)
    else created.set(key, { order, text: response.text })
    return response
  }

  /** Expects the predicted outcome of a `POST /orders`. */
  async function expectOutcome(given: WireRequest): Promise<WireResponse> {
    const outcome = predictOutcome(given, MAX_BODY_BYTES)
    if ('code' in outcome) return expectRefusal(given, outcome.code)
    const { key, order } = outcome
    // One request of a key at a time: of concurrent ones, any may create the order.
    const response = (lastOfKey.get(key) ?? Promise.resolve())
      .catch(() => {})
      .then(() => expectOrder(given, key, order))
    lastOfKey.set(key, response)
    return response
  }

  /** Expects exactly the orders that got a 201 in the table. */
  async function expectRows(): Promise<void> {
    const rows = await database.sql`
      select idempotency_key as key, user_id, item, amount::text as written from public.orders`
    const stored = rows.map(({ key, user_id, item, written }) => {
      const amount = Number(written)
      const isValid = isKey(key) && isText(user_id) && isText(item) && isAmount(amount)
      expect({ written, isValid }).toEqual({ written: amount.toFixed(4), isValid: true })
      return [key, { user_id, item, amount }] as const
    })
    const acknowledged = [...created].map(([key, { order }]) => [key, order] as const)
    expect(new Map(stored)).toEqual(new Map(acknowledged))
    expect(logLines).toEqual([]) // LOG_LEVEL is error
  }
  return { sendCase, expectOutcome, expectRefusal, expectRows, counts, count }
}

/** Copies the request, with a new key in place of `NEW_KEY`, and signs it with the key of its client. */
function completeRequest(given: WireRequest): WireRequest {
  const { method, path, body, messageSignature } = given
  const idempotencyKey = newKey()
  const lines = given.headers.map(
    ([name, value]): HeaderLine => [name, value.replace(NEW_KEY, idempotencyKey)],
  )
  if (!messageSignature) return { ...given, headers: lines }
  const { key, spoil = { change: (headers) => headers } } = messageSignature
  const signed = signMessage(key, {
    ...{ method, path, authority: HOST, body },
    headers: Object.fromEntries(lines.map(([name, value]) => [name.toLowerCase(), value])),
  })
  return { ...given, headers: spoil.change(Object.entries(signed)) }
}

/** Sends a request and reads its response. */
function send(port: number, agent: Agent, { method, path, headers, body }: WireRequest) {
  return new Promise<WireResponse>((resolve, reject) => {
    const outgoing = request({
      host: '127.0.0.1',
      port,
      agent,
      method,
      path,
      // Node sends an array as it is, and adds no header.
      headers: ['Host', HOST, ...headers.flat()],
      timeout: RESPONSE_TIMEOUT_MS,
    })
    outgoing.on('timeout', () =>
      outgoing.destroy(new Error(`no response in ${RESPONSE_TIMEOUT_MS} ms`)),
    )
    outgoing.on('error', reject)
    outgoing.on('response', async (response: IncomingMessage) => {
      const chunks = await response.toArray().catch(reject)
      const text = Buffer.concat(chunks ?? []).toString()
      resolve({ status: response.statusCode ?? 0, headers: response.headers, text })
    })
    outgoing.end(body)
  })
}

/** Checks the property on random cases. A failure names the seed and the path that repeat it. */
async function fuzz(
  runs: number,
  cases: fc.Arbitrary<WireRequest>,
  property: (given: WireRequest) => Promise<unknown>,
): Promise<void> {
  const checks = Array.from({ length: CONCURRENT_CASES }, () =>
    fc.assert(
      fc.asyncProperty(cases, async (given) => void (await property(completeRequest(given)))),
      { numRuns: runs / CONCURRENT_CASES },
    ),
  )
  // All must end before the service closes.
  const failed = (await Promise.allSettled(checks)).find(({ status }) => status === 'rejected')
  if (failed?.status === 'rejected') throw failed.reason
}

/** Expects at least `min` of each outcome: the random cases must not miss one. */
function expectOutcomes(counts: Map<string, number>, min: number, outcomes: string[]): void {
  const rare = outcomes.filter((outcome) => (counts.get(outcome) ?? 0) < min)
  expect({ rare, counts }).toEqual({ rare: [], counts })
}

describe('random requests', () => {
  test(
    'any body: a valid one creates an order, any other is refused',
    async () => {
      const { expectOutcome, expectRows, counts } = await startTarget()
      await fuzz(BODY_CASES, withAnyBody, expectOutcome)
      await expectRows()
      expectOutcomes(counts, BODY_CASES / 100, ['created', 'invalid-body'])
      expectOutcomes(counts, 1, ['body-too-large'])
    },
    TEST_MS,
  )

  test(
    'any headers: an order, its replay, or the refusal of the first wrong header',
    async () => {
      const { expectOutcome, expectRows, counts } = await startTarget()
      await fuzz(HEADER_CASES, withAnyHeaders, async (given) => {
        const { headers } = await expectOutcome(given)
        const id = String(headers['x-request-id'])
        const sent = getHeaderLines(given, 'x-request-id')
        // The id of the request, if it has one; another text than a UUID may also be replaced.
        const isSent = sent.length === 1 && sent[0] === id
        const mustBeSent = sent.length === 1 && UUID.test(sent[0] ?? '')
        expect({ id, isFine: isSent || (!mustBeSent && UUID.test(id)) }).toEqual({
          id,
          isFine: true,
        })
        expect(headers['preference-applied'] ?? 'wait=0').toMatch(/^wait=([12]?\d|30)$/)
      })
      await expectRows()
      expectOutcomes(counts, HEADER_CASES / 400, [
        ...['created', 'replayed', 'idempotency-key-reused', 'invalid-body'],
        ...['signature-missing', 'signature-invalid', 'unsupported-media-type'],
        ...['idempotency-key-missing', 'idempotency-key-invalid'],
      ])
    },
    TEST_MS,
  )

  test(
    'any message signature: a wrong one is refused, whatever is wrong; a right one is an order or a replay',
    async () => {
      const { expectOutcome, expectRows, counts } = await startTarget()
      await fuzz(SIGNATURE_CASES, withAnySignature, expectOutcome)
      await expectRows()
      expectOutcomes(counts, SIGNATURE_CASES / 400, [
        ...['created', 'replayed', 'idempotency-key-reused', 'invalid-body'],
        ...['signature-missing', 'signature-invalid', 'signature-expired'],
      ])
    },
    TEST_MS,
  )

  test(
    'any path and method: the page, the order, or the refusal',
    async () => {
      const { sendCase, expectOutcome, expectRefusal, expectRows, count, counts } =
        await startTarget()
      await fuzz(PATH_CASES, withAnyPath, async (given) => {
        const { method } = given
        const target = predictTarget(given.path)
        const isRead = method === 'GET' || method === 'HEAD'
        if (target === 'orders' && method === 'POST') return expectOutcome(given)
        if (target === 'orders' || target === 'order') {
          if (!isRead) return expectRefusal(given, 'method-not-allowed')
          const code = target === 'orders' ? 'bad-request' : 'order-not-found'
          return expectRefusal(given, predictSignatureRefusal(given) ?? code)
        }
        if (target !== 'page' && target !== 'no page' && target !== 'redirect') {
          return expectRefusal(given, target)
        }
        if (!isRead) return expectRefusal(given, 'method-not-allowed')
        if (target === 'redirect') return expect((await sendCase(given)).status).toBe(302)
        if (target === 'no page') return expectRefusal(given, 'not-found')
        count('page')
        const { status, headers } = await sendCase(given)
        expect(status).toBe(200)
        return expect(headers['content-type']).toMatch(
          /^(text\/html|application\/json); charset=utf-8$/,
        )
      })
      await expectRows()
      expectOutcomes(counts, 10, [
        ...['created', 'page', 'not-found', 'method-not-allowed', 'bad-request'],
        ...['headers-too-large', 'order-not-found', 'signature-invalid'],
      ])
    },
    TEST_MS,
  )
})

/** Predicts what a path leads to. 'no page': that of a problem which does not exist. */
function predictTarget(
  path: string,
): 'orders' | 'order' | 'page' | 'no page' | 'redirect' | ProblemCode {
  // More than Node reads of all headers.
  if (path.length > 16 * 1024) return 'headers-too-large'
  // A URI is visible ASCII (RFC 3986).
  if (!/^[!-~]*$/.test(path)) return 'bad-request'
  const [pathname = ''] = path.split(/[?#]/)
  try {
    const [, first, code, ...more] = pathname.split('/').map(decodeURIComponent)
    if (pathname === '/') return 'page'
    if (code === undefined && first === 'problems') return 'page'
    if (code === undefined) return first === 'orders' ? 'orders' : 'not-found'
    if (first === 'orders' && more.length === 0) return 'order'
    if (first === 'problems' && code === '' && more.length === 0) return 'redirect'
    if (first !== 'problems' || more.length > 0) return 'not-found'
    return Object.hasOwn(PROBLEMS, code) ? 'page' : 'no page'
  } catch {
    return 'bad-request'
  }
}
