/** Every refusal that a client can receive: its status, title and explanation, and how it is made. */
import {
  type FieldError,
  PROBLEM_TYPES as idempotencyProblems,
  Problem,
  type ProblemOptions,
} from '@order-once/idempotency'
import { MAX_HEADER_BYTES, RETRY_AFTER_SECONDS } from '../limits.ts'

export const PROBLEMS = {
  'idempotency-key-missing': {
    ...idempotencyProblems['idempotency-key-missing'],
    explanation:
      'You choose a key for each order, so that a repeated request cannot create the order twice. Send one Idempotency-Key header. Use a new UUID for each new order, and the same key when you repeat the order.',
  },
  'idempotency-key-invalid': {
    ...idempotencyProblems['idempotency-key-invalid'],
    explanation:
      'Send exactly one Idempotency-Key header of 1 to 255 visible ASCII characters, without double quotes, commas and backslashes. Double quotes around the key are allowed.',
  },
  'invalid-body': {
    status: 400,
    title: 'The body is not a valid order',
    explanation:
      'The body must be a JSON object with exactly the members of an order. The errors member lists each field and the rule that it breaks. Nothing was stored: you can use the same Idempotency-Key for the corrected body.',
  },
  'bad-request': {
    ...idempotencyProblems['bad-request'],
    explanation:
      'The request is not well-formed HTTP, or its URL cannot be decoded. Check what your client sends on the wire.',
  },
  'signature-missing': {
    status: 401,
    title: 'The signature is missing',
    explanation:
      'Sign the request in one of two ways. With a shared secret: send the HMAC-SHA256 of the exact bytes of the body, as 64 hex digits, in X-Signature. With a key of your own: send an HTTP message signature (RFC 9421) in Signature-Input and Signature. The response lists in WWW-Authenticate which of them the service accepts, and in Accept-Signature what a message signature must cover.',
  },
  'signature-invalid': {
    status: 401,
    title: 'The signature is not valid',
    explanation:
      'The detail names the header and its rule. X-Signature must be the HMAC-SHA256 of the exact bytes of the body, keyed with the shared secret, as 64 hex digits. A message signature must cover the required components and be made with a key of the client. Usual causes are another key, or a request that was changed or reformatted after it was signed.',
  },
  'signature-expired': {
    status: 401,
    title: 'The time of the signature is out of range',
    explanation:
      'The time in created is too far from that of the service, or the time in expires is in the past. The detail has the time of the service. Set the clock of the client, and sign each attempt again with the same Idempotency-Key.',
  },
  'not-found': {
    status: 404,
    title: 'The path does not exist',
    explanation:
      'Orders are created with POST /orders, and read with GET. Check the path of the request.',
  },
  'order-not-found': {
    status: 404,
    title: 'There is no such order',
    explanation:
      'The client has no order with this id or Idempotency-Key. Orders of other clients count as none. A request with the key may still be in flight, and create the order later: only a repeat of it with POST /orders shows how it ended. An order whose key was released is found by its id.',
  },
  'method-not-allowed': {
    status: 405,
    title: 'The method is not allowed here',
    explanation: 'The Allow header of the response lists the methods of this path.',
  },
  'request-timeout': {
    status: 408,
    title: 'The request did not arrive in time',
    explanation:
      'The headers or the body arrived too slowly, so the service closed the connection. Repeat the request with the same Idempotency-Key.',
  },
  'idempotency-key-reused': {
    ...idempotencyProblems['idempotency-key-reused'],
    explanation:
      'This key was first sent with another body. The first request and its response are unchanged. Send the original body to get its response again, or choose a new key for a new order.',
  },
  'request-in-progress': {
    ...idempotencyProblems['request-in-progress'],
    explanation:
      'The first request with this key and body has no response yet. Repeat it after the seconds in Retry-After to get the response. If its process has probably died, these are the seconds until the key is free: the repeat then creates the order.',
  },
  'body-too-large': {
    status: 413,
    title: 'The body is too large',
    explanation: 'An order is small. The detail names the limit in bytes.',
  },
  'unsupported-media-type': {
    status: 415,
    title: 'The body is not application/json',
    explanation:
      'Send the order as JSON, with Content-Type: application/json and without a Content-Encoding other than identity.',
  },
  'misdirected-request': {
    status: 421,
    title: 'The Host is not a name of this machine',
    explanation:
      'With the published secret, the service accepts only requests to a loopback name, so that a web page of another host cannot use it. Use localhost or 127.0.0.1, or set PUBLIC_URL to the URL by which clients address the service.',
  },
  'rate-limit-exceeded': {
    status: 429,
    title: 'Too many requests',
    explanation:
      'Each client may send a limited number of requests in a window of time. Repeats count too. Repeat with the same Idempotency-Key after the seconds in Retry-After.',
  },
  'headers-too-large': {
    status: 431,
    title: 'The headers are too large',
    explanation: 'The headers of the request are larger than the service accepts.',
  },
  'internal-error': {
    status: 500,
    title: 'The service failed',
    explanation:
      'The order may exist or not. Repeat the request with the same Idempotency-Key: the order cannot be created twice.',
  },
  'database-unavailable': {
    status: 503,
    title: 'The database is unavailable',
    explanation:
      'Orders cannot be created now. This order may exist or not. Repeat the request with the same Idempotency-Key after the seconds in Retry-After: the order cannot be created twice.',
  },
  overloaded: {
    status: 503,
    title: 'The service is overloaded',
    explanation:
      'The service has more requests than it can handle in time. Repeat with the same Idempotency-Key after the seconds in Retry-After.',
  },
  'shutting-down': {
    status: 503,
    title: 'This instance is shutting down',
    explanation:
      'Repeat with the same Idempotency-Key after the seconds in Retry-After. Another instance, or this one after its restart, will respond.',
  },
} as const satisfies Record<string, { status: number; title: string; explanation: string }>

export type ProblemCode = keyof typeof PROBLEMS

/** Whether the same request, as it is, may succeed later: a property of the code. */
export function isRetryable({ code, statusCode }: Pick<Problem, 'code' | 'statusCode'>): boolean {
  return statusCode >= 500 || [408, 429].includes(statusCode) || code === 'request-in-progress'
}

export const PROBLEM_CODES = Object.keys(PROBLEMS) as ProblemCode[]

/** The path of the pages that explain problems. The `type` of a problem is this path and its code. */
export const PROBLEMS_PATH = '/problems/'

const RETRY_AFTER = { headers: { 'retry-after': String(RETRY_AFTER_SECONDS) } }

const create = (code: ProblemCode, detail: string, options?: ProblemOptions) =>
  new Problem(code, PROBLEMS[code], detail, options)

/** The problems of the service. The package has those of idempotency keys. */
export const problems = {
  badRequest: (detail: string) => create('bad-request', detail),
  hostHeader: () => problems.badRequest('Host must be sent exactly once.'),
  malformedHttp: () => problems.badRequest('The request is not well-formed HTTP/1.1.'),
  tooManyChunks: (max: number) =>
    problems.badRequest(`The body must not be sent in more than ${max} chunks.`),
  invalidBody: (errors: FieldError[]) => {
    const sentences = errors.map(({ field, message }) => `${field} ${message}`)
    return create('invalid-body', `${sentences.join('; ')}.`, { errors })
  },
  signatureMissing: (detail: string) => create('signature-missing', detail),
  signatureInvalid: (detail: string) => create('signature-invalid', detail),
  /** @param nowSeconds the time of the service, in seconds since 1970 */
  signatureExpired: (reason: string, nowSeconds: number) => {
    const time = new Date(nowSeconds * 1000).toISOString().replace('.000', '')
    return create('signature-expired', `${reason}. The service has ${nowSeconds} (${time}).`)
  },
  notFound: (path: string) => create('not-found', `There is nothing at ${path}.`),
  orderNotFound: (by: 'id' | 'key') => {
    const name = by === 'id' ? 'id' : 'Idempotency-Key'
    return create('order-not-found', `The client has no order with this ${name}.`)
  },
  methodNotAllowed: (path: string, method: string, allow: string) =>
    create('method-not-allowed', `${path} takes ${allow}, not ${method}.`, { headers: { allow } }),
  requestTimeout: () => create('request-timeout', 'The request did not arrive in time.'),
  bodyTooLarge: (maxBytes: number) =>
    create('body-too-large', `The body must not be larger than ${maxBytes} bytes.`),
  contentType: () => create('unsupported-media-type', 'Content-Type must be application/json.'),
  contentEncoding: () =>
    // RFC 9110 §15.5.16: Accept-Encoding says that the coding was the cause, and which ones are accepted.
    create('unsupported-media-type', 'The body must have no Content-Encoding, or identity.', {
      headers: { 'accept-encoding': 'identity' },
    }),
  /** @param waitSeconds until the window ends */
  rateLimitExceeded: (rule: string, waitSeconds: number) => {
    const seconds = Math.max(1, waitSeconds)
    const headers = { 'retry-after': String(seconds) }
    return create('rate-limit-exceeded', `${rule}; wait ${seconds} s.`, { headers })
  },
  misdirectedRequest: () =>
    create(
      'misdirected-request',
      'Host must be a loopback name, such as localhost or 127.0.0.1, or that of PUBLIC_URL.',
    ),
  headersTooLarge: () =>
    create('headers-too-large', `The headers must not be larger than ${MAX_HEADER_BYTES} bytes.`),
  internalError: () =>
    create(
      'internal-error',
      'The request could not be completed. It is safe to repeat it.',
      RETRY_AFTER,
    ),
  databaseUnavailable: () =>
    create(
      'database-unavailable',
      'The database does not accept orders now. It is safe to repeat the request.',
      RETRY_AFTER,
    ),
  overloaded: () =>
    create('overloaded', 'There are more requests than can be handled in time.', RETRY_AFTER),
  shuttingDown: () =>
    create('shutting-down', 'This instance accepts no new requests.', RETRY_AFTER),
}
