/** The fields of an order; its canonical form and its response follow from them. */
import { fingerprintCanonical, type StoredResponse } from '@order-once/idempotency'
import type { FuncKeywordDefinition } from 'ajv'
import type { FromSchema } from 'json-schema-to-ts'

/** 15 significant digits, as many as a double carries exactly; the column is `numeric(15,4)`. */
const MAX_AMOUNT = 99_999_999_999.9999
const AMOUNT_DECIMALS = 4

/** Not blank. All patterns mean the same in RE2 and in ECMAScript, with and without the flag `u`. */
const TEXT_PATTERN = '\\S'

const TEXT = {
  type: 'string',
  minLength: 1,
  maxLength: 255,
  pattern: TEXT_PATTERN,
  'x-well-formed': true,
  description: 'a string of 1 to 255 characters, not blank, of well-formed Unicode without NUL',
} as const

/**
 * What a client sends. Each `description` is the rule as an error message states it: "<field> must
 * be …". To add a field, add it here and in columns.ts: see CONTRIBUTING.md.
 */
export const NEW_ORDER = {
  title: 'NewOrder', // its name in the OpenAPI document
  description: 'a JSON object with the members of an order',
  type: 'object',
  properties: {
    user_id: TEXT,
    item: TEXT,
    amount: {
      type: 'number',
      exclusiveMinimum: 0,
      maximum: MAX_AMOUNT,
      'x-max-decimals': AMOUNT_DECIMALS,
      description: `a number greater than 0, at most ${MAX_AMOUNT}, with at most ${AMOUNT_DECIMALS} decimals`,
    },
  },
  required: ['user_id', 'item', 'amount'],
  additionalProperties: false,
  examples: [{ user_id: 'user-1', item: 'book', amount: 500 }],
} as const

export type NewOrder = FromSchema<typeof NEW_ORDER>
export type FieldName = keyof NewOrder

/** The names of the fields, in the order in which a response has them. */
export const FIELD_NAMES = Object.keys(NEW_ORDER.properties) as FieldName[]

/** RFC 8785 §3.2.3 sorts by UTF-16 code units, as `sort` does. */
const SORTED_FIELD_NAMES = FIELD_NAMES.toSorted()

/**
 * Formats an order as canonical JSON (RFC 8785): the members sorted, strings and numbers as
 * `JSON.stringify` writes them. This holds for fields that are strings, numbers or booleans, which a
 * test checks.
 */
export function canonicalizeOrder(order: NewOrder): string {
  const sorted: Record<string, unknown> = {}
  for (const name of SORTED_FIELD_NAMES) sorted[name] = order[name]
  return JSON.stringify(sorted)
}

/** An order as the table keeps it; `created_at` in ms since 1970. */
export type Order = NewOrder & {
  id: string
  /** whose order it is */
  client_id: string
  idempotency_key: string
  request_fingerprint: string
  created_at: number
}

/** The path of the orders. */
export const ORDERS_PATH = '/orders'

/** Computes the fingerprint of the request that creates an order. The query is not part of it. */
export function fingerprintOrder(order: NewOrder): string {
  return fingerprintCanonical('POST', ORDERS_PATH, canonicalizeOrder(order))
}

/** The last formatted time. All orders of one insert have the same: see docs/performance.md. */
let lastFormatted = { ms: Number.NaN, text: '' }

function formatTime(ms: number): string {
  if (ms !== lastFormatted.ms) lastFormatted = { ms, text: new Date(ms).toISOString() }
  return lastFormatted.text
}

/** Builds the response to an order: a pure function of its row, so every repeat gets the same bytes. */
export function buildResponse(order: Order): StoredResponse {
  const body: Record<string, unknown> = { id: order.id }
  for (const name of FIELD_NAMES) body[name] = order[name]
  body.idempotency_key = order.idempotency_key
  body.created_at = formatTime(order.created_at)
  return {
    statusCode: 201,
    headers: {
      'content-type': 'application/json; charset=utf-8',
      location: `${ORDERS_PATH}/${order.id}`,
    },
    body: JSON.stringify({ order: body }),
  }
}

/** Lists the fields in which a body differs from the order of the first request with its key. */
export function listChangedFields(body: NewOrder, order: Order): FieldName[] {
  return FIELD_NAMES.filter((name) => body[name] !== order[name])
}

/** The rules of fields that JSON Schema cannot express, as keywords of Ajv. */
export const FIELD_KEYWORDS = [
  {
    keyword: 'x-well-formed',
    type: 'string',
    schemaType: 'boolean',
    validate: (isRequired: boolean, value: string) => !isRequired || isWellFormed(value),
  },
  {
    keyword: 'x-max-decimals',
    type: 'number',
    schemaType: 'number',
    validate: (decimals: number, value: number) => hasAtMostDecimals(value, decimals),
  },
] satisfies FuncKeywordDefinition[]

/** Whether a text has no NUL (Postgres has none in text) and no lone surrogate (UTF-8 has none). */
function isWellFormed(text: string): boolean {
  return !text.includes('\0') && !/\p{Surrogate}/u.test(text)
}

/**
 * Whether the double is the nearest one to a number with so many decimals. (JSON Schema's
 * `multipleOf: 0.0001` divides in floating point and refuses 0.0007.) Exact as long as
 * `value * 10 ** decimals` stays below 2 ** 53.
 */
function hasAtMostDecimals(value: number, decimals: number): boolean {
  const scale = 10 ** decimals
  return Math.round(value * scale) / scale === value
}
