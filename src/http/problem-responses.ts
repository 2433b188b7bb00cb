import Type from 'typebox'
import { type FieldError, PROBLEMS, Problem, type ProblemCode } from './problem.ts'

/** A problem document, as the OpenAPI document names it: `#/components/schemas/Problem`. */
export const PROBLEM_SCHEMA = Type.Object(
  {
    type: Type.String({ format: 'uri-reference', description: 'a page that explains it' }),
    title: Type.String(),
    status: Type.Integer(),
    detail: Type.String({ description: 'names the header or field, and the rule that it breaks' }),
    code: Type.Enum(Object.keys(PROBLEMS)),
    errors: Type.Optional(
      Type.Array(Type.Object({ field: Type.String(), message: Type.String() }), {
        description: 'one entry for each broken rule of the body',
      }),
    ),
  },
  { description: 'What is wrong, and how to mend it (RFC 9457).' },
)

const REQUEST_ID = {
  'X-Request-Id': { type: 'string', description: 'the request’s own, or a new one' },
}
const RETRY_AFTER = {
  'Retry-After': { type: 'integer', description: 'seconds to wait before a repeat' },
}

/** The headers of every answer to a well-signed request. */
export const SIGNED_HEADERS = {
  'X-RateLimit-Limit': { type: 'integer', description: 'requests allowed in a window' },
  'X-RateLimit-Remaining': { type: 'integer', description: 'those that are left' },
  'X-RateLimit-Reset': { type: 'integer', description: 'seconds until the window ends' },
  ...REQUEST_ID,
}

const HEADERS: Record<number, object> = {
  400: SIGNED_HEADERS,
  401: {
    'WWW-Authenticate': { type: 'string', description: 'how to sign' },
    ...REQUEST_ID,
  },
  405: {
    Allow: { type: 'string', description: 'the methods that this path takes' },
    ...REQUEST_ID,
  },
  409: { ...RETRY_AFTER, ...SIGNED_HEADERS },
  415: SIGNED_HEADERS,
  422: SIGNED_HEADERS,
  429: { ...RETRY_AFTER, ...SIGNED_HEADERS },
  500: { ...RETRY_AFTER, ...SIGNED_HEADERS },
  503: { ...RETRY_AFTER, ...REQUEST_ID },
}

/** What each problem says of an exemplary request. */
const EXAMPLES: Record<ProblemCode, { detail: string; errors?: FieldError[] }> = {
  'idempotency-key-missing': { detail: 'Idempotency-Key is required.' },
  'idempotency-key-invalid': { detail: 'Idempotency-Key must be sent exactly once.' },
  'invalid-body': {
    detail: 'item is required; colour is not a member of an order.',
    errors: [
      { field: 'item', message: 'is required' },
      { field: 'colour', message: 'is not a member of an order' },
    ],
  },
  'bad-request': { detail: 'Host must be sent exactly once.' },
  'signature-missing': { detail: 'X-Signature is required.' },
  'signature-invalid': {
    detail: 'X-Signature must be the HMAC-SHA256 of the exact body bytes, as 64 hex digits.',
  },
  'not-found': { detail: 'There is nothing at /order.' },
  'method-not-allowed': { detail: '/orders takes POST, not GET.' },
  'request-timeout': { detail: 'The request did not arrive in time.' },
  'idempotency-key-reused': {
    detail:
      'Idempotency-Key was first sent with another request; choose a new key for a new request.',
  },
  'request-in-progress': {
    detail: 'The same request under this Idempotency-Key is still at work; repeat it later.',
  },
  'body-too-large': { detail: 'The body must not be larger than 65536 bytes.' },
  'unsupported-media-type': { detail: 'Content-Type must be application/json.' },
  'rate-limit-exceeded': { detail: 'At most 10 requests are allowed in 60 s; wait 42 s.' },
  'headers-too-large': { detail: 'The headers must not be larger than 16384 bytes.' },
  'internal-error': { detail: 'The request could not be completed. It is safe to repeat it.' },
  overloaded: { detail: 'There is more to do than can be finished in time.' },
  'store-unavailable': { detail: 'Idempotency-Key cannot be checked now; repeat later.' },
  'shutting-down': { detail: 'This instance takes no new requests.' },
}

/**
 * The answers of a route that are problems, by status, each with an example.
 *
 * @param statuses of codes that have another on this route than their own
 */
export function problemResponses(
  codes: ProblemCode[],
  statuses: Partial<Record<ProblemCode, number>> = {},
): Record<string, object> {
  const statusOf = (code: ProblemCode) => statuses[code] ?? PROBLEMS[code].status
  const responses: Record<string, object> = {}
  for (const status of new Set(codes.map(statusOf))) {
    const ofStatus = codes.filter((code) => statusOf(code) === status)
    responses[status] = {
      description: ofStatus
        .map((code) => `**${PROBLEMS[code].title}.** ${PROBLEMS[code].explanation}`)
        .join('\n\n'),
      headers: HEADERS[status] ?? REQUEST_ID,
      content: {
        'application/problem+json': {
          schema: { $ref: '#/components/schemas/Problem' },
          examples: Object.fromEntries(ofStatus.map((code) => [code, exampleOf(code, status)])),
        },
      },
    }
  }
  return responses
}

/** Made as the service makes its answers. */
function exampleOf(code: ProblemCode, status: number) {
  const { detail, errors } = EXAMPLES[code]
  const problem = new Problem(code, detail, { status, ...(errors && { errors }) })
  return { summary: PROBLEMS[code].title, value: problem.toDocument() }
}
