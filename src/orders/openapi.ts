/** What the OpenAPI document says of `POST /orders`. */
import { KEY_CHARACTERS, MAX_KEY_LENGTH } from '@order-once/idempotency'
import type { FastifySchema } from 'fastify'
import Type from 'typebox'
import { describeProblems, SIGNED_HEADERS } from '../http/problem-schemas.ts'
import { PROBLEM_CODES } from '../http/problems.ts'
import { NewOrder } from './schema.ts'

const EXAMPLE = {
  id: '0a4f2c9e-6d1b-4f7e-9c55-3b8f0f6d2a71',
  user_id: 'user-1',
  item: 'book',
  amount: 500,
  idempotency_key: 'key-001',
  created_at: '2026-03-22T12:37:20.123Z',
}

const OrderCreated = Type.Object({
  order: Type.Object({
    id: Type.String({ format: 'uuid' }),
    ...NewOrder.properties,
    idempotency_key: Type.String(),
    created_at: Type.String({ format: 'date-time' }),
  }),
})

const KEY_PATTERN = `${KEY_CHARACTERS}{1,${MAX_KEY_LENGTH}}`

/** @param mismatchStatus of a key that is sent with another body */
export function createOrderSchema(
  mismatchStatus: 409 | 422,
): FastifySchema & { body: typeof NewOrder } {
  return {
    operationId: 'createOrder',
    tags: ['Orders'],
    summary: 'Create an order exactly once',
    description:
      'Send a new `Idempotency-Key` for each new order, and the same key again whenever you repeat it. A repeat gets the first response again, byte for byte, with `Idempotency-Replayed: true`.',
    security: [{ signature: [] }],
    body: NewOrder,
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
        },
        'X-Request-Id': { type: 'string', description: 'is returned in the response' },
      },
    },
    response: {
      201: {
        description: 'The order: a new one, or on a repeat the existing one.',
        headers: {
          'Idempotency-Replayed': {
            type: 'string',
            enum: ['true'],
            description: 'on a repeat; never on a first response',
          },
          'Preference-Applied': {
            type: 'string',
            description: 'the wait that `Prefer` was granted',
          },
          ...SIGNED_HEADERS,
        },
        content: {
          'application/json': {
            schema: OrderCreated,
            examples: { order: { summary: 'The order', value: { order: EXAMPLE } } },
          },
        },
      },
      ...describeProblems(PROBLEM_CODES, { 'idempotency-key-reused': mismatchStatus }),
    },
  }
}
