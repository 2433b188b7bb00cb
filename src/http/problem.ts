/** Every refusal a client can meet: its status, its title, and what to do about it. */
export const PROBLEMS = {
  'idempotency-key-missing': {
    status: 400,
    title: 'The Idempotency-Key header is missing',
    explanation:
      'An order is created under a key that you choose, so that a repeated request cannot create it twice. Send one Idempotency-Key header, for example a new UUID for each new order, and the same key again whenever you repeat that order.',
  },
  'idempotency-key-invalid': {
    status: 400,
    title: 'The Idempotency-Key header is invalid',
    explanation:
      'Send exactly one Idempotency-Key header of 1 to 255 visible ASCII characters, without double quotes, commas and backslashes. The key may stand in double quotes, as a structured field does.',
  },
  'invalid-body': {
    status: 400,
    title: 'The body is not a valid order',
    explanation:
      'The body must be a JSON object with exactly user_id, item and amount; the errors member lists each field and the rule that it breaks. Nothing was stored: the same Idempotency-Key can be used for the corrected body.',
  },
  'bad-request': {
    status: 400,
    title: 'The request is malformed',
    explanation:
      'The request is not well-formed HTTP, or its URL cannot be decoded. Check what your client sends on the wire.',
  },
  'signature-missing': {
    status: 401,
    title: 'The X-Signature header is missing',
    explanation:
      'Sign the exact bytes of the body with HMAC-SHA256 and the shared secret, and send the result as 64 hex digits in X-Signature.',
  },
  'signature-invalid': {
    status: 401,
    title: 'The X-Signature header does not match the body',
    explanation:
      'The signature must be the HMAC-SHA256 of the exact bytes of the body, keyed with the shared secret, as 64 hex digits. Usual causes are another secret, or a body that was changed or formatted anew after it was signed.',
  },
  'not-found': {
    status: 404,
    title: 'There is nothing here',
    explanation: 'Orders are created with POST /orders. Check the path of the request.',
  },
  'method-not-allowed': {
    status: 405,
    title: 'The method is not allowed here',
    explanation: 'The Allow header of the answer lists the methods that this path takes.',
  },
  'request-timeout': {
    status: 408,
    title: 'The request did not arrive in time',
    explanation:
      'The headers or the body came too slowly, so the connection was closed. Repeat the request with the same Idempotency-Key.',
  },
  'idempotency-key-reused': {
    status: 409,
    title: 'The Idempotency-Key belongs to another request',
    explanation:
      'This key was first sent with another body. The first request and its answer stand as they are. Send the original body to get its answer again, or choose a new key for a new order.',
  },
  'request-in-progress': {
    status: 409,
    title: 'The same request is still at work',
    explanation:
      'A request with this key and this body is being worked on. Repeat it after the time in Retry-After and you get its answer.',
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
      'Send the order as JSON, with Content-Type: application/json and without a Content-Encoding.',
  },
  'rate-limit-exceeded': {
    status: 429,
    title: 'Too many requests',
    explanation:
      'Each client may send a limited number of requests in a window of time; repeats count too. Wait for the seconds in Retry-After, then repeat with the same Idempotency-Key.',
  },
  'headers-too-large': {
    status: 431,
    title: 'The headers are too large',
    explanation: 'The headers of the request are larger than the service reads.',
  },
  'internal-error': {
    status: 500,
    title: 'Something went wrong on our side',
    explanation:
      'Whether the order was created is not known to you, but it cannot be created twice: repeat the request with the same Idempotency-Key.',
  },
  overloaded: {
    status: 503,
    title: 'The service is overloaded',
    explanation:
      'The service has more to do than it can finish in time. Repeat with the same Idempotency-Key after the seconds in Retry-After.',
  },
  'store-unavailable': {
    status: 503,
    title: 'The Idempotency-Key cannot be checked now',
    explanation:
      'Without its store the service cannot tell whether this request is a repeat, so it did nothing. Repeat with the same Idempotency-Key after the seconds in Retry-After. Orders never meet this: their database decides.',
  },
  'shutting-down': {
    status: 503,
    title: 'This instance is shutting down',
    explanation:
      'Repeat with the same Idempotency-Key after the seconds in Retry-After; another instance, or this one started anew, will answer.',
  },
} as const satisfies Record<string, { status: number; title: string; explanation: string }>

export type ProblemCode = keyof typeof PROBLEMS

/** One broken rule of the body: the member that breaks it and the rule. */
export interface FieldError {
  field: string
  message: string
}

/** The body of every error answer, `application/problem+json` (RFC 9457 §3). */
export interface ProblemDocument {
  type: string
  title: string
  status: number
  detail: string
  code: ProblemCode
  errors?: FieldError[]
}

export const PROBLEM_MEDIA_TYPE = 'application/problem+json; charset=utf-8'

/** The path of the page that explains a problem. */
export const problemPath = (code: ProblemCode) => `/problems/${code}`

/** A refusal: thrown anywhere in the way of a request, answered by the error handler. */
export class Problem extends Error {
  override name = 'Problem'
  readonly code: ProblemCode
  readonly statusCode: number
  readonly headers: Record<string, string>
  readonly errors: FieldError[] | undefined

  /**
   * @param detail names the offending header or field and the rule
   * @param options `headers`: sent with the answer; `errors`: one entry a broken field; `status`: in
   * place of the code's own
   */
  constructor(
    code: ProblemCode,
    detail: string,
    options: { headers?: Record<string, string>; errors?: FieldError[]; status?: number } = {},
  ) {
    // Where a refusal was thrown is of no interest, and finding out takes as long as the answer.
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    super(detail)
    Error.stackTraceLimit = stackTraceLimit
    this.code = code
    this.statusCode = options.status ?? PROBLEMS[code].status
    this.headers = options.headers ?? {}
    this.errors = options.errors
  }

  /** The problem as the client reads it. */
  toDocument(): ProblemDocument {
    return {
      type: problemPath(this.code),
      title: PROBLEMS[this.code].title,
      status: this.statusCode,
      detail: this.message,
      code: this.code,
      ...(this.errors && { errors: this.errors }),
    }
  }
}
