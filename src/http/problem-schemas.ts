/** Describes problems for the OpenAPI document, with examples made as the service makes problems. */
import { problems as keyProblems, type Problem } from '@order-once/idempotency'
import { RETRY_AFTER_SECONDS } from '../limits.ts'
import {
  isRetryable,
  PROBLEM_CODES,
  PROBLEMS,
  PROBLEMS_PATH,
  type ProblemCode,
  problems,
} from './problems.ts'

/** The code whose document has a schema of its own. */
const INVALID_BODY = 'invalid-body'

/** The members of every problem document. */
const COMMON_MEMBERS = {
  type: { type: 'string', format: 'uri-reference', description: 'a page that explains it' },
  title: { type: 'string' },
  status: { type: 'integer' },
  detail: {
    type: 'string',
    description: 'names the header or field, and the rule that it breaks',
  },
  instance: {
    type: 'string',
    format: 'uri',
    description: '`urn:uuid:` and the id of the request',
  },
  retryable: {
    type: 'boolean',
    description: 'whether the same request, as it is, may succeed later',
  },
}

const REQUIRED_MEMBERS = ['type', 'title', 'status', 'detail', 'retryable', 'code']

/** Its codes are those without a schema of their own, so that `code` tells the schemas apart. */
const PROBLEM_DOCUMENT = {
  title: 'Problem',
  description: 'What is wrong, and how to fix it (RFC 9457).',
  type: 'object',
  properties: {
    ...COMMON_MEMBERS,
    code: { type: 'string', enum: PROBLEM_CODES.filter((code) => code !== INVALID_BODY) },
    changed: {
      type: 'array',
      items: { type: 'string' },
      description: 'the members of the body that differ from the order of the key',
    },
  },
  required: REQUIRED_MEMBERS,
}

const INVALID_BODY_DOCUMENT = {
  title: 'InvalidBody',
  description: 'Which rules the body breaks (RFC 9457).',
  type: 'object',
  properties: {
    ...COMMON_MEMBERS,
    code: { type: 'string', enum: [INVALID_BODY] },
    errors: {
      type: 'array',
      items: {
        type: 'object',
        properties: { field: { type: 'string' }, message: { type: 'string' } },
        required: ['field', 'message'],
      },
      description: 'one entry for each broken rule of the body',
    },
  },
  required: [...REQUIRED_MEMBERS, 'errors'],
}

/** An id of a request, for examples. */
export const REQUEST_ID_EXAMPLE = '5c0f8f0e-0b0a-4c57-9f6e-0d6a3f1b7c42'

const REQUEST_ID = {
  'X-Request-Id': {
    type: 'string',
    description: 'the id of the request, or a new one',
    examples: [REQUEST_ID_EXAMPLE],
  },
}

/** The headers of every response to a signed request. */
export const SIGNED_HEADERS = {
  'X-RateLimit-Limit': {
    type: 'integer',
    description: 'requests allowed in a window',
    examples: [10],
  },
  'X-RateLimit-Remaining': {
    type: 'integer',
    description: 'requests that are left',
    examples: [9],
  },
  'X-RateLimit-Reset': {
    type: 'integer',
    description: 'seconds until the window ends',
    examples: [42],
  },
  ...REQUEST_ID,
}

/** The statuses of problems that are found after the signature. */
const SIGNED_STATUSES = new Set([400, 409, 415, 422, 429, 500])

/** Problems that are found after the signature, of statuses that others have before it. */
const SIGNED_CODES = new Set(['order-not-found', 'database-unavailable'])

/** Headers that some problems have. */
const PROBLEM_HEADERS = {
  'Retry-After': {
    type: 'integer',
    description: 'seconds to wait before a repeat',
    examples: [RETRY_AFTER_SECONDS],
  },
  Allow: { type: 'string', description: 'the methods of this path', examples: ['GET, POST'] },
}

/** The headers of each 401. */
const CHALLENGE_HEADERS = {
  'WWW-Authenticate': {
    type: 'string',
    description: 'how to sign',
    examples: ['HMAC-SHA256 header="X-Signature"'],
  },
  'Accept-Signature': {
    type: 'string',
    description: 'what a message signature must cover (RFC 9421 §5.1), if clients have keys',
    examples: ['sig1=("@method" "@authority" "@path");created'],
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

/** A response as fastify-swagger expects it. */
interface DescribedResponse {
  description: string
  headers: Record<string, object>
  content: Record<string, object>
}

/** Describes the responses of a route that are problems, by status, each with examples. */
export function describeProblems(
  codes: ProblemCode[],
  chosenStatus: ChosenStatus = {},
): Record<string, DescribedResponse> {
  const created = createExamples(chosenStatus)
  const examples = codes.map((code) => created[code])
  const responses: Record<string, DescribedResponse> = {}
  for (const status of new Set(examples.map(({ statusCode }) => statusCode))) {
    const ofStatus = examples.filter(({ statusCode }) => statusCode === status)
    responses[status] = describeResponse(status, ofStatus)
  }
  return responses
}

function describeResponse(status: number, examples: Problem[]): DescribedResponse {
  const ownHeaders = Object.entries(PROBLEM_HEADERS).filter(([name]) =>
    examples.some(({ headers }) => name.toLowerCase() in headers),
  )
  const isSigned =
    SIGNED_STATUSES.has(status) || examples.some(({ code }) => SIGNED_CODES.has(code))
  return {
    description: examples.map(({ title }) => `${title}.`).join(' '),
    headers: {
      ...Object.fromEntries(ownHeaders),
      ...(status === 401 && CHALLENGE_HEADERS),
      ...(isSigned ? SIGNED_HEADERS : REQUEST_ID),
    },
    content: {
      'application/problem+json': {
        schema: chooseSchema(examples),
        examples: Object.fromEntries(
          examples.map((example) => [
            example.code,
            {
              summary: example.title,
              description: PROBLEMS[example.code as ProblemCode].explanation,
              value: { ...example.toDocument(PROBLEMS_PATH), retryable: isRetryable(example) },
            },
          ]),
        ),
      },
    },
  }
}

function chooseSchema(examples: Problem[]): object {
  const others = examples.filter(({ code }) => code !== INVALID_BODY)
  if (others.length === examples.length) return PROBLEM_DOCUMENT
  return others.length === 0
    ? INVALID_BODY_DOCUMENT
    : { oneOf: [INVALID_BODY_DOCUMENT, PROBLEM_DOCUMENT] }
}
