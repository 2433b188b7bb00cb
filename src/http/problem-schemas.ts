/** Describes problems for the OpenAPI document, with examples made as the service makes problems. */
import { problems as keyProblems, type Problem } from '@order-once/idempotency'
import Type from 'typebox'
import { RETRY_AFTER_SECONDS } from '../limits.ts'
import {
  isRetryable,
  PROBLEM_CODES,
  PROBLEMS,
  PROBLEMS_PATH,
  type ProblemCode,
  problems,
} from './problems.ts'

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
    changed: Type.Optional(
      Type.Array(Type.String(), {
        description: 'the members of the body that differ from the order of the key',
      }),
    ),
    instance: Type.Optional(
      Type.String({ format: 'uri', description: '`urn:uuid:` and the id of the request' }),
    ),
    retryable: Type.Boolean({
      description: 'whether the same request, as it is, may succeed later',
    }),
  },
  { description: 'What is wrong, and how to fix it (RFC 9457).' },
)

const REQUEST_ID = {
  'X-Request-Id': { type: 'string', description: 'the id of the request, or a new one' },
}

/** The headers of every response to a signed request. */
export const SIGNED_HEADERS = {
  'X-RateLimit-Limit': { type: 'integer', description: 'requests allowed in a window' },
  'X-RateLimit-Remaining': { type: 'integer', description: 'requests that are left' },
  'X-RateLimit-Reset': { type: 'integer', description: 'seconds until the window ends' },
  ...REQUEST_ID,
}

/** The statuses of problems that are found after the signature. */
const SIGNED_STATUSES = new Set([400, 409, 415, 422, 429, 500])

/** Headers that some problems have. */
const PROBLEM_HEADERS = {
  'Retry-After': { type: 'integer', description: 'seconds to wait before a repeat' },
  Allow: { type: 'string', description: 'the methods of this path' },
}

/** The headers of each 401. */
const CHALLENGE_HEADERS = {
  'WWW-Authenticate': { type: 'string', description: 'how to sign' },
  'Accept-Signature': {
    type: 'string',
    description: 'what a message signature must cover (RFC 9421 §5.1), if clients have keys',
  },
}

/** One code has the status that the settings give it. */
interface ChosenStatus {
  'idempotency-key-reused'?: 409 | 422
}

/** Creates a problem of each code, as the service does. */
const createExamples = ({ 'idempotency-key-reused': mismatchStatus = 409 }: ChosenStatus) =>
  ({
    'idempotency-key-missing': keyProblems.keyMissing(),
    'idempotency-key-invalid': keyProblems.keyInvalid(),
    'invalid-body': problems.invalidBody([
      { field: 'item', message: 'is required' },
      { field: 'colour', message: 'is not a member of an order' },
    ]),
    'bad-request': problems.hostHeader(),
    'signature-missing': problems.signatureMissing('X-Signature is required.'),
    'signature-invalid': problems.signatureInvalid('Signature-Input must cover "idempotency-key".'),
    'signature-expired': problems.signatureExpired(
      'Signature-Input: created is 412 s in the past, and at most 300 s are allowed',
      1_795_000_412,
    ),
    'not-found': problems.notFound('/order'),
    'order-not-found': problems.orderNotFound('id'),
    'method-not-allowed': problems.methodNotAllowed('/orders', 'GET', 'POST'),
    'request-timeout': problems.requestTimeout(),
    'idempotency-key-reused': keyProblems.keyReused(mismatchStatus, ['amount']),
    'request-in-progress': keyProblems.requestInProgress(RETRY_AFTER_SECONDS),
    'body-too-large': problems.bodyTooLarge(65_536),
    'unsupported-media-type': problems.contentType(),
    'rate-limit-exceeded': problems.rateLimitExceeded(
      'At most 10 requests are allowed in 60 s',
      42,
    ),
    'misdirected-request': problems.misdirectedRequest(),
    'headers-too-large': problems.headersTooLarge(),
    'internal-error': problems.internalError(),
    'database-unavailable': problems.databaseUnavailable(),
    overloaded: problems.overloaded(),
    'shutting-down': problems.shuttingDown(),
  }) satisfies Record<ProblemCode, Problem>

/** Describes the responses of a route that are problems, by status, each with examples. */
export function describeProblems(
  codes: ProblemCode[],
  chosenStatus: ChosenStatus = {},
): Record<string, object> {
  const created = createExamples(chosenStatus)
  const examples = codes.map((code) => created[code])
  const responses: Record<string, object> = {}
  for (const status of new Set(examples.map(({ statusCode }) => statusCode))) {
    const ofStatus = examples.filter(({ statusCode }) => statusCode === status)
    responses[status] = describeResponse(status, ofStatus)
  }
  return responses
}

function describeResponse(status: number, examples: Problem[]) {
  const ownHeaders = Object.entries(PROBLEM_HEADERS).filter(([name]) =>
    examples.some(({ headers }) => name.toLowerCase() in headers),
  )
  const isSigned =
    SIGNED_STATUSES.has(status) || examples.every(({ code }) => code === 'order-not-found')
  return {
    description: examples
      .map(({ code, title }) => `**${title}.** ${PROBLEMS[code as ProblemCode].explanation}`)
      .join('\n\n'),
    headers: {
      ...Object.fromEntries(ownHeaders),
      ...(status === 401 && CHALLENGE_HEADERS),
      ...(isSigned ? SIGNED_HEADERS : REQUEST_ID),
    },
    content: {
      'application/problem+json': {
        schema: { $ref: '#/components/schemas/Problem' },
        examples: Object.fromEntries(
          examples.map((example) => [
            example.code,
            {
              summary: example.title,
              value: { ...example.toDocument(PROBLEMS_PATH), retryable: isRetryable(example) },
            },
          ]),
        ),
      },
    },
  }
}
