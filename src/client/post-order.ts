/** Sends one request, `POST /orders`, and parses its response. */
import type { SignedOrder } from './sign.ts'

/** A response from the service, or from a proxy in front of it. */
export interface OrderResponse {
  status: number
  statusText: string
  headers: Headers
  body: string
  /** the order in a 201 */
  order: Order | undefined
  /** whether an earlier request with the same key had created the order */
  replayed: boolean
  /** the problem code of a refusal, such as `rate-limit-exceeded` */
  code: string | undefined
  /** what is wrong with a refused request, in a sentence */
  detail: string | undefined
}

export interface Order {
  id: string
  [member: string]: unknown
}

/** No complete response arrived: it is unknown whether the order was created. */
export interface NetworkError {
  /** the reason */
  error: string
}

/**
 * Sends an order once.
 *
 * @param timeoutMs time limit for the complete response, to its last byte
 */
export async function postOrder(
  { createRequest, body }: SignedOrder,
  timeoutMs: number,
): Promise<OrderResponse | NetworkError> {
  const signal = AbortSignal.timeout(Math.ceil(timeoutMs))
  let response: Response
  let text: string
  try {
    response = await fetch(createRequest(), { body, signal })
    text = await response.text()
  } catch (error) {
    if (signal.aborted) return { error: `no response within ${Math.ceil(timeoutMs) / 1000} s` }
    return { error: describeFetchError(error) }
  }
  const { status, statusText, headers } = response
  const { order, code, detail } = parseMembers(text)
  return {
    status,
    statusText,
    headers,
    body: text,
    order: status === 201 && isOrder(order) ? order : undefined,
    replayed: headers.get('idempotency-replayed') === 'true',
    code: typeof code === 'string' ? code : undefined,
    detail: typeof detail === 'string' ? detail : undefined,
  }
}

/** @returns the members of a JSON object; none for any other text, such as a proxy's HTML page */
function parseMembers(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    return isObject(value) ? value : {}
  } catch {
    return {}
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function isOrder(value: unknown): value is Order {
  return isObject(value) && typeof value.id === 'string'
}

/** Adds the cause, such as a refused connection, to the general message of `fetch`. */
function describeFetchError(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { message, cause } = error
  const reason = isObject(cause) && (cause.message || cause.code)
  return [message, reason].filter(Boolean).join(': ').replaceAll(/\s+/g, ' ')
}
