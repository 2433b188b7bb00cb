import Type from 'typebox'
import { type RouteReference, SIGNED } from '../http/open-api.ts'
import { PROBLEMS, type ProblemCode } from '../http/problem.ts'
import { problemResponses, SIGNED_HEADERS } from '../http/problem-responses.ts'

const ORDER = {
  id: '0a4f2c9e-6d1b-4f7e-9c55-3b8f0f6d2a71',
  user_id: 'user-1',
  item: 'book',
  amount: 500,
  idempotency_key: 'key-001',
  created_at: '2026-03-22T12:37:20.123Z',
}

const OrderAnswer = Type.Object({
  order: Type.Object({
    id: Type.String({ format: 'uuid' }),
    user_id: Type.String(),
    item: Type.String(),
    amount: Type.Number(),
    idempotency_key: Type.String(),
    created_at: Type.String({ format: 'date-time' }),
  }),
})

/** Whatever a client of orders can meet; none of it is for the want of a store. */
const REFUSALS = (Object.keys(PROBLEMS) as ProblemCode[]).filter(
  (code) => code !== 'store-unavailable',
)

/**
 * What the OpenAPI document says of `POST /orders`.
 *
 * @param mismatchStatus of a key that is sent with another body
 */
export function orderReference(mismatchStatus: 409 | 422): RouteReference {
  return {
    operationId: 'createOrder',
    tags: ['Orders'],
    summary: 'Create an order exactly once',
    description:
      'Send a new `Idempotency-Key` for each new order, and the same key again whenever you repeat it. A repeat gets the first answer again, byte for byte, with `Idempotency-Replayed: true`.',
    security: SIGNED,
    headers: {
      type: 'object',
      required: ['Idempotency-Key'],
      properties: {
        'Idempotency-Key': {
          type: 'string',
          minLength: 1,
          pattern: '^("[!#-+\\--\\[\\]-~]{1,255}"|[!#-+\\--\\[\\]-~]{1,255})$',
          description:
            '1 to 255 visible ASCII characters without `"`, `,` and `\\`, bare or in double quotes',
          examples: ['key-001'],
        },
        Prefer: {
          type: 'string',
          description:
            '`wait=10`: how many seconds to wait, at most 30, for a first request still at work',
        },
        'X-Request-Id': { type: 'string', description: 'comes back in the answer' },
      },
    },
    response: {
      201: {
        description: 'The order: a new one, or on a repeat the one that is there.',
        headers: {
          'Idempotency-Replayed': {
            type: 'string',
            enum: ['true'],
            description: 'on a repeat; never on a first answer',
          },
          'Preference-Applied': {
            type: 'string',
            description: 'the wait that `Prefer` was granted',
          },
          ...SIGNED_HEADERS,
        },
        content: {
          'application/json': {
            schema: OrderAnswer,
            examples: { order: { summary: 'The order', value: { order: ORDER } } },
          },
        },
      },
      ...problemResponses(REFUSALS, { 'idempotency-key-reused': mismatchStatus }),
    },
  }
}
