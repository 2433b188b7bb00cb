/**
 * Checks what clients saw under one key: a register that is written at most once must explain it.
 * The first request to write it creates the order; every later 201 repeats that response, and every
 * other body is refused.
 */

/** One request and its result; times on the clock of `performance.now`. */
export interface Exchange {
  key: string
  /** the bytes that were sent: the members of the order in the order of the contract */
  body: string
  /** the index of the instance that it was sent to */
  instance: number
  sentAt: number
  endedAt: number
  /** status and code ("409 request-in-progress"), or the error of the connection */
  result: string
  /** of a 201 */
  created?: { response: string; isReplay: boolean }
}

export type ViolationKind = 'lost' | 'doubled' | 'invented' | 'unexplained' | 'unfinished'

export interface Violation {
  kind: ViolationKind
  message: string
}

export const REUSED = '409 idempotency-key-reused'
export const IN_PROGRESS = '409 request-in-progress'

/**
 * Checks the exchanges of one key.
 *
 * @param stored the responses that the orders of this key in the table stand for
 */
export function checkHistory(exchanges: Exchange[], stored: string[]): Violation[] {
  const violations: Violation[] = []
  const report = (kind: ViolationKind, message: string) => violations.push({ kind, message })

  const created = exchanges.filter((exchange) => exchange.created)
  const first = created.filter((exchange) => !exchange.created?.isReplay)
  const responses = [...new Set(created.map((exchange) => String(exchange.created?.response)))]
  if (stored.length > 1) report('doubled', `${stored.length} orders`)
  if (first.length > 1) report('doubled', `${first.length} first responses`)
  if (responses.length > 1) report('doubled', `different responses: ${responses.join(' and ')}`)
  if (created.length === 0 && exchanges.length > 0) report('unfinished', 'no request got a 201')
  if (created.length > 0 && stored.length === 0) report('lost', 'there was a 201, but no order')

  const [response] = [...stored, ...responses]
  const body = response && readRequestBody(response)
  for (const other of responses.filter((other) => other !== response)) {
    report('invented', `the order is ${response}, a response was ${other}`)
  }
  const writes = exchanges.filter((exchange) => exchange.body === body && mayHaveWritten(exchange))
  if (response && writes.length === 0) report('invented', `no request can have made ${response}`)

  // The order was created at some moment from the first of these to the second.
  const createdFrom = Math.min(...(first.length > 0 ? first : writes).map(({ sentAt }) => sentAt))
  const createdBy = Math.min(...created.map(({ endedAt }) => endedAt))
  if (createdBy < createdFrom) report('unexplained', 'a replay before the order was created')

  for (const exchange of exchanges) {
    const { result } = exchange
    const isLater = exchange.sentAt > createdBy
    // Those that may hold the key; one that is refused as in progress has no claim itself.
    const rivals = exchanges.filter(
      (other) => other.sentAt < exchange.endedAt && other.result !== IN_PROGRESS,
    )
    if (exchange.created && exchange.body !== body) {
      report('unexplained', `a 201 for ${exchange.body}, but the order is ${response}`)
    }
    if (result === REUSED && !rivals.some((other) => other.body !== exchange.body)) {
      report('unexplained', `${result}, but no request with another body can hold the key`)
    }
    if (result === REUSED && isLater && exchange.body === body) {
      report('unexplained', `${result} for the body of the order, after its 201`)
    }
    if (result === IN_PROGRESS && !rivals.some((other) => other.body === exchange.body)) {
      report('unexplained', `${result}, but no other request with this body can be in flight`)
    }
    if (result === IN_PROGRESS && isLater) report('unexplained', `${result} after a 201`)
  }
  return violations
}

/** Whether the request may have created the order: a 5xx or a missing response leaves it open. */
function mayHaveWritten({ result, created }: Exchange): boolean {
  return created ? !created.isReplay : !result.startsWith('4')
}

/** Reads the body of the request that this response belongs to. */
function readRequestBody(response: string): string {
  const { user_id, item, amount } = JSON.parse(response).order
  return JSON.stringify({ user_id, item, amount })
}
