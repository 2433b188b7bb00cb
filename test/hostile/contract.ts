/**
 * The contract as a program of its own: predicts the outcome of every request. It is written from the
 * contract, and on purpose not with the code of src/.
 */
import { expect } from 'vitest'
import { PROBLEMS, type ProblemCode } from '../../src/http/problems.ts'
import { sign } from '../support/client.ts'
import type { SigningKey } from '../support/message-signature.ts'

/** A request as it goes over the wire. */
export interface WireRequest {
  method: string
  path: string
  /** a line each; several may have the same name */
  headers: HeaderLine[]
  body: Buffer
  /** undefined: `X-Signature` is among the headers, or missing */
  messageSignature?: MessageSignature | undefined
}

export type HeaderLine = [name: string, value: string]

/** How a request is signed with a key of its client. */
export interface MessageSignature {
  key: SigningKey
  /** what is done to the signed headers, and the refusal that follows */
  spoil?: { change: (headers: HeaderLine[]) => HeaderLine[]; code: ProblemCode } | undefined
}

export interface WireResponse {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
}

export interface Order {
  user_id: string
  item: string
  amount: number
}

/** A refusal with this code, or an order under this key. */
export type Outcome = { code: ProblemCode } | { key: string; order: Order }

/** Predicts the outcome of a `POST /orders`; the checks are in the order of the pipeline. */
export function predictOutcome(request: WireRequest, maxBodyBytes: number): Outcome {
  const { body } = request
  if (body.length > maxBodyBytes) return { code: 'body-too-large' }
  const code = predictSignatureRefusal(request)
  if (code) return { code }

  // Node takes the first of several lines.
  const [mediaType = ''] = (getHeaderLines(request, 'content-type')[0] ?? '').split(';')
  if (mediaType.trim().toLowerCase() !== 'application/json') {
    return { code: 'unsupported-media-type' }
  }
  const codings = getHeaderLines(request, 'content-encoding')
  if (codings.length > 0 && codings.join().toLowerCase() !== 'identity') {
    return { code: 'unsupported-media-type' }
  }

  const order = parseOrder(body)
  if (order === undefined) return { code: 'invalid-body' }

  const [line, ...moreLines] = getHeaderLines(request, 'idempotency-key')
  if (line === undefined) return { code: 'idempotency-key-missing' }
  const key = /^".*"$/.test(line) ? line.slice(1, -1) : line
  return moreLines.length === 0 && isKey(key) ? { key, order } : { code: 'idempotency-key-invalid' }
}

/** @returns undefined if the signature is right */
export function predictSignatureRefusal(request: WireRequest): ProblemCode | undefined {
  const { method, path, body, messageSignature } = request
  if (messageSignature) return messageSignature.spoil?.code
  const [signature, ...more] = getHeaderLines(request, 'x-signature')
  if (signature === undefined) return 'signature-missing'
  const signed = method === 'POST' ? body : path
  const isRight = more.length === 0 && signature.toLowerCase() === sign(signed)
  return isRight ? undefined : 'signature-invalid'
}

/** Returns the values of a header, without the white space around them (RFC 9110 §5.5). */
export function getHeaderLines({ headers }: WireRequest, wanted: string): string[] {
  return headers
    .filter(([name]) => name.toLowerCase() === wanted)
    .map(([, value]) => value.replace(/^[ \t]+|[ \t]+$/g, ''))
}

/** @returns undefined if the bytes are not a valid order */
export function parseOrder(bytes: Buffer): Order | undefined {
  const value = parseJson(bytes)
  if (typeof value !== 'object' || value === null || Object.keys(value).length !== 3) return
  if (countColons(bytes.toString()) !== 3) return // a member occurs twice
  const { user_id, item, amount } = value as Record<string, unknown>
  if (isText(user_id) && isText(item) && isAmount(amount)) return { user_id, item, amount }
  return
}

function parseJson(bytes: Buffer): unknown {
  try {
    // UTF-8 without a byte order mark (RFC 8259 §8.1).
    return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes))
  } catch {
    return undefined
  }
}

/** Counts the colons outside strings. */
function countColons(json: string): number {
  let count = 0
  let isInString = false
  for (let i = 0; i < json.length; i++) {
    if (json[i] === '\\') i++
    else if (json[i] === '"') isInString = !isInString
    else if (json[i] === ':' && !isInString) count++
  }
  return count
}

export function isText(value: unknown): value is string {
  if (typeof value !== 'string') return false
  const characters = [...value].length
  const isWellFormed = Buffer.from(value).toString() === value // UTF-8 has no lone surrogate
  return (
    characters >= 1 &&
    characters <= 255 &&
    value.trim() !== '' &&
    isWellFormed &&
    !value.includes('\0')
  )
}

/** Decimals are counted in the shortest text of the double, as RFC 8785 writes it. */
export function isAmount(value: unknown): value is number {
  if (typeof value !== 'number' || !(value > 0 && value <= 99_999_999_999.9999)) return false
  return /^\d+(\.\d{1,4})?$/.test(String(value))
}

export function isKey(text: string): boolean {
  return /^[!-~]{1,255}$/.test(text) && !/[",\\]/.test(text)
}

/** The statuses of the contract's table. */
const STATUS: Partial<Record<ProblemCode, number>> = {
  'bad-request': 400,
  'idempotency-key-missing': 400,
  'idempotency-key-invalid': 400,
  'invalid-body': 400,
  'signature-missing': 401,
  'signature-invalid': 401,
  'signature-expired': 401,
  'not-found': 404,
  'order-not-found': 404,
  'method-not-allowed': 405,
  'idempotency-key-reused': 409,
  'body-too-large': 413,
  'unsupported-media-type': 415,
  'headers-too-large': 431,
}

const ANY_UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** Expects a problem document with this code. */
export function expectProblem(response: WireResponse, code: ProblemCode): void {
  const { status, headers, text } = response
  const requestId = `${headers['x-request-id']}`
  // One comparison, so that a failure shows the whole response.
  expect({ status, type: headers['content-type'], document: JSON.parse(text) }).toEqual({
    status: STATUS[code],
    type: 'application/problem+json; charset=utf-8',
    document: {
      type: `/problems/${code}`,
      title: PROBLEMS[code].title,
      status,
      detail: expect.stringMatching(/./),
      code,
      ...(code === 'invalid-body' && { errors: expect.any(Array) }),
      ...(code === 'idempotency-key-reused' && { changed: ['amount'] }),
      ...(ANY_UUID.test(requestId) && { instance: `urn:uuid:${requestId}` }),
      retryable: false,
    },
  })
  if (code === 'invalid-body') expectFieldErrors(JSON.parse(text).errors)
  if (status === 401) {
    expect(headers['www-authenticate']).toContain('HMAC-SHA256')
    expect(headers['accept-signature']).toMatch(/^sig1=\("@method" .*\);created$/)
  }
  if (status === 405) expect(headers.allow).toMatch(/^[A-Z]+(, [A-Z]+)*$/)
}

function expectFieldErrors(errors: unknown[]): void {
  expect(errors.length).toBeGreaterThan(0)
  for (const error of errors) {
    expect(error).toEqual({ field: expect.any(String), message: expect.stringMatching(/./) })
  }
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

/** Expects the 201 of this order; the service chooses only its id and time. */
export function expectCreated(response: WireResponse, key: string, order: Order): void {
  const { status, headers, text } = response
  const { id, created_at } = status === 201 ? JSON.parse(text).order : {}
  const { user_id, item, amount } = order
  const expected = { id, user_id, item, amount, idempotency_key: key, created_at }
  expect({ status, type: headers['content-type'], text }).toEqual({
    status: 201,
    type: 'application/json; charset=utf-8',
    text: JSON.stringify({ order: expected }),
  })
  expect(id).toMatch(UUID)
  expect(created_at).toMatch(INSTANT)
}
