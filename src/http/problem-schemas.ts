/** Problems in the OpenAPI document. */
import { problems as keyProblems, type Problem } from '@order-once/idempotency'
import Type from 'typebox'
import { PROBLEM_CODES, PROBLEMS, PROBLEMS_PATH, type ProblemCode, problems } from './problems.ts'

/** A problem document, in the OpenAPI document `#/components/schemas/Problem`. */
export const PROBLEM_SCHEMA = Type.Object(
  {
    type: Type.String({ format: 'uri-reference', description: 'a page that explains it' }),
    title: Type.String(),
    status: Type.Integer(),
    detail: Type.String({ description: 'names the header or field, and the rule that it breaks' }),
    code: Type.Enum(PROBLEM_CODES),
    errors: Type.Optional(
      Type.Array(Type.Object({ field: Type.String(), message: Type.String() }), {
        description: 'one entry for each broken rule of the body',
      }),
    ),
  },
  { description: 'What is wrong, and how to fix it (RFC 9457).' },
)

const REQUEST_ID = {
  'X-Request-Id': { type: 'string', description: 'the id of the request, or a new one' },
}
const RETRY_AFTER = {
  'Retry-After': { type: 'integer', description: 'seconds to wait before a repeat' },
}

/** The headers of every response to a signed request. */
export const SIGNED_HEADERS = {
  'X-RateLimit-Limit': { type: 'integer', description: 'requests allowed in a window' },
  'X-RateLimit-Remaining': { type: 'integer', description: 'requests that are left' },
  'X-RateLimit-Reset': { type: 'integer', description: 'seconds until the window ends' },
  ...REQUEST_ID,
}

const HEADERS: Record<number, object> = {
  400: SIGNED_HEADERS,
  401: { 'WWW-Authenticate': { type: 'string', description: 'how to sign' }, ...REQUEST_ID },
  405: { Allow: { type: 'string', description: 'the methods of this path' }, ...REQUEST_ID },
  409: { ...RETRY_AFTER, ...SIGNED_HEADERS },
  415: SIGNED_HEADERS,
  422: SIGNED_HEADERS,
  429: { ...RETRY_AFTER, ...SIGNED_HEADERS },
  500: { ...RETRY_AFTER, ...SIGNED_HEADERS },
  503: { ...RETRY_AFTER, ...REQUEST_ID },
}

/** Makes an example of each problem, as the service makes it. */
const EXAMPLES: Record<ProblemCode, () => Problem> = {
  'idempotency-key-missing': keyProblems.keyMissing,
  'idempotency-key-invalid': keyProblems.keyInvalid,
  'invalid-body': () =>
    problems.invalidBody([
      { field: 'item', message: 'is required' },
      { field: 'colour', message: 'is not a member of an order' },
    ]),
  'bad-request': problems.hostHeader,
  'signature-missing': problems.signatureMissing,
  'signature-invalid': problems.signatureInvalid,
  'not-found': () => problems.notFound('/order'),
  'method-not-allowed': () => problems.methodNotAllowed('/orders', 'GET', 'POST'),
  'request-timeout': problems.requestTimeout,
  'idempotency-key-reused': () => keyProblems.keyReused(409),
  'request-in-progress': keyProblems.requestInProgress,
  'body-too-large': () => problems.bodyTooLarge(65_536),
  'unsupported-media-type': problems.contentType,
  'rate-limit-exceeded': () =>
    problems.rateLimitExceeded('At most 10 requests are allowed in 60 s', 42),
  'headers-too-large': problems.headersTooLarge,
  'internal-error': problems.internalError,
  overloaded: problems.overloaded,
  'shutting-down': problems.shuttingDown,
}

/**
 * Describes the responses of a route that are problems, by status, each with an example.
 *
 * @param statuses of codes that have another status on this route than their own
 */
export function describeProblems(
  codes: ProblemCode[],
  statuses: Partial<Record<ProblemCode, number>> = {},
): Record<string, object> {
  const responses: Record<string, object> = {}
  const getStatus = (code: ProblemCode) => statuses[code] ?? PROBLEMS[code].status
  for (const status of new Set(codes.map(getStatus))) {
    const ofStatus = codes.filter((code) => getStatus(code) === status)
    responses[status] = {
      description: ofStatus
        .map((code) => `**${PROBLEMS[code].title}.** ${PROBLEMS[code].explanation}`)
        .join('\n\n'),
      headers: HEADERS[status] ?? REQUEST_ID,
      content: {
        'application/problem+json': {
          schema: { $ref: '#/components/schemas/Problem' },
          examples: Object.fromEntries(ofStatus.map((code) => [code, createExample(code, status)])),
        },
      },
    }
  }
  return responses
}

function createExample(code: ProblemCode, status: number) {
  const document = EXAMPLES[code]().toDocument(PROBLEMS_PATH)
  return { summary: PROBLEMS[code].title, value: { ...document, status } }
}
