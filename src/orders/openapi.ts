/** What the OpenAPI document says of the routes of orders. */
import { KEY_CHARACTERS, MAX_KEY_LENGTH } from '@order-once/idempotency'
import type { FastifySchema } from 'fastify'
import { describeProblems, REQUEST_ID_EXAMPLE, SIGNED_HEADERS } from '../http/problem-schemas.ts'
import { PROBLEM_CODES } from '../http/problems.ts'
import { NEW_ORDER, ORDERS_PATH } from './schema.ts'

const EXAMPLE = {
  id: '0a4f2c9e-6d1b-4f7e-9c55-3b8f0f6d2a71',
  user_id: 'user-1',
  item: 'book',
  amount: 500,
  idempotency_key: 'key-001',
  created_at: '2026-03-22T12:37:20.123Z',
}

const ORDER = {
  title: 'Order',
  type: 'object',
  properties: {
    id: { type: 'string', format: 'uuid' },
    ...NEW_ORDER.properties,
    idempotency_key: { type: 'string' },
    created_at: { type: 'string', format: 'date-time' },
  },
  required: ['id', ...NEW_ORDER.required, 'idempotency_key', 'created_at'],
}

const ORDER_CREATED = {
  title: 'OrderCreated',
  type: 'object',
  properties: { order: ORDER },
  required: ['order'],
}

const CONTENT = {
  'application/json': {
    schema: ORDER_CREATED,
    examples: { order: { summary: 'The order', value: { order: EXAMPLE } } },
  },
}

/**
 * The example of a header that the usual response does not have. A mock server sends all headers: without an
 * example it would invent a value, and with that of a repeat each of its responses would be a replay.
 */
const ABSENT = ['']

/** Either of the two schemes. */
const SECURITY = [{ signature: [] }, { messageSignature: [] }]

const KEY_PATTERN = `${KEY_CHARACTERS}{1,${MAX_KEY_LENGTH}}`

const CREATE_PROBLEMS = PROBLEM_CODES.filter((code) => code !== 'order-not-found')

/** @param mismatchStatus of a key that is sent with another body */
export function createOrderSchema(mismatchStatus: 409 | 422): FastifySchema {
  return {
    operationId: 'createOrder',
    tags: ['Orders'],
    summary: 'Create an order exactly once',
    description:
      'Send a new `Idempotency-Key` for each new order, and the same key again whenever you repeat it. A repeat gets the first response again, byte for byte, with `Idempotency-Replayed: true`.',
    security: SECURITY,
    body: NEW_ORDER,
    headers: {
      type: 'object',
      required: ['Idempotency-Key'],
      properties: {
        'Idempotency-Key': {
          type: 'string',
          minLength: 1,
          pattern: `^("${KEY_PATTERN}"|${KEY_PATTERN})$`,
          description: `1 to ${MAX_KEY_LENGTH} visible ASCII characters without \`"\`, \`,\` and \`\\\`, bare or in double quotes`,
          examples: ['key-001'],
        },
        Prefer: {
          type: 'string',
          description:
            '`wait=10`: how many seconds to wait, at most 30, for a first request that is in flight',
          examples: ['wait=10'],
        },
        'X-Request-Id': {
          type: 'string',
          description: 'is returned in the response',
          examples: [REQUEST_ID_EXAMPLE],
        },
      },
    },
    response: {
      201: {
        description: 'The order: a new one, or on a repeat the existing one.',
        headers: {
          Location: {
            type: 'string',
            description: 'the path of the order',
            examples: [`${ORDERS_PATH}/${EXAMPLE.id}`],
          },
          'Idempotency-Replayed': {
            type: 'string',
            description: '`true` on a repeat; never on a first response',
            examples: ABSENT,
          },
          'Preference-Applied': {
            type: 'string',
            description:
              'the wait that `Prefer` was granted, such as `wait=10`; only if it was granted',
            examples: ABSENT,
          },
          ...SIGNED_HEADERS,
        },
        content: CONTENT,
      },
      ...describeProblems(CREATE_PROBLEMS, { 'idempotency-key-reused': mismatchStatus }),
    },
  }
}

const READ_RESPONSES = {
  200: {
    description: 'The order, with the bytes of the response that created it.',
    headers: SIGNED_HEADERS,
    content: CONTENT,
  },
  ...describeProblems([
    ...(['bad-request', 'signature-missing', 'signature-invalid', 'signature-expired'] as const),
    ...(['order-not-found', 'rate-limit-exceeded', 'internal-error'] as const),
    ...(['database-unavailable', 'overloaded', 'shutting-down'] as const),
  ]),
}

export const READ_ORDER_SCHEMA = {
  operationId: 'readOrder',
  tags: ['Orders'],
  summary: 'Read an order',
  description: 'With `X-Signature`, the signature is that of the path, such as `/orders/<id>`.',
  security: SECURITY,
  params: {
    type: 'object',
    properties: { id: { type: 'string', format: 'uuid', examples: [EXAMPLE.id] } },
    required: ['id'],
  },
  response: READ_RESPONSES,
}

export const FIND_ORDER_SCHEMA = {
  operationId: 'findOrder',
  tags: ['Orders'],
  summary: 'Find the order of a key',
  description:
    'With `X-Signature`, the signature is that of the path with its query, as sent. A 404 does not promise that no request with the key is in flight.',
  security: SECURITY,
  querystring: {
    type: 'object',
    properties: {
      idempotency_key: { type: 'string', description: 'URL-encoded', examples: ['key-001'] },
    },
    required: ['idempotency_key'],
  },
  response: READ_RESPONSES,
}
