import type { SignedOrder } from './sign.ts'

/** What the service answered. */
export interface Answer {
  status: number
  statusText: string
  headers: Headers
  body: string
  /** of a 201 */
  order: Order | undefined
  replayed: boolean
  /** the service's name for a refusal, such as `rate-limit-exceeded` */
  code: string | undefined
  /** what is wrong, in a sentence */
  detail: string | undefined
}

/** An order as the service gives it back: its id, and what it was made from. */
export interface Order {
  id: string
  [member: string]: unknown
}

/** There was no answer, or not all of it: whether the order was created is unknown. */
export interface NoAnswer {
  error: string
}

/** Sends an order once. Its answer must have arrived within `timeoutMs`, to the last byte. */
export async function postOrder(
  { request, body }: SignedOrder,
  timeoutMs: number,
): Promise<Answer | NoAnswer> {
  const signal = AbortSignal.timeout(Math.ceil(timeoutMs))
  let response: Response
  let text: string
  try {
    response = await fetch(request, { body, signal })
    text = await response.text()
  } catch (error) {
    if (signal.aborted) return { error: `no answer within ${Math.ceil(timeoutMs) / 1000} s` }
    return { error: reasonOf(error as Error) }
  }
  const { status, statusText, headers } = response
  const { order, code, detail } = membersOf(text)
  return {
    status,
    statusText,
    headers,
    body: text,
    order: status === 201 && typeof order?.id === 'string' ? order : undefined,
    replayed: headers.get('idempotency-replayed') === 'true',
    code,
    detail,
  }
}

function membersOf(text: string): Partial<Pick<Answer, 'order' | 'code' | 'detail'>> {
  try {
    return JSON.parse(text) ?? {}
  } catch {
    return {} // not JSON, so not an answer of the service itself
  }
}

/** What fetch throws says little; its cause knows, for one, that the connection was refused. */
function reasonOf({ message, cause }: Error): string {
  const { code, message: reason } = (cause ?? {}) as { code?: string; message?: string }
  return [message, reason || code].filter(Boolean).join(': ').replaceAll(/\s+/g, ' ')
}
