/** Formats what `order-once order` prints. */
import type { NetworkError, OrderResponse } from './post-order.ts'
import { isExactlyOnce, type RepeatSummary } from './repeat-order.ts'
import type { Attempt, Outcome } from './send-with-retries.ts'
import type { SignedOrder } from './sign.ts'

/** The response headers that explain the result. Others, such as `Date`, are left out. */
const DISPLAYED_HEADERS =
  /^(content-type|idempotency-replayed|location|retry-after|www-authenticate|x-ratelimit-.*|x-request-id)$/

const START_HINT = 'Is the service running? Start it with `npm start`.'

/** Formats a request as text, as it would be signed now: its method and URL, all headers and its body. */
export function formatRequest({ createRequest, body }: SignedOrder): string {
  const request = createRequest()
  const text = new TextDecoder().decode(body)
  return formatMessage(`${request.method} ${request.url}`, [...request.headers], text)
}

/** Formats a response as text: its status, the headers in `DISPLAYED_HEADERS` and its body. */
export function formatResponse({ status, statusText, headers, body }: OrderResponse): string {
  const displayed = [...headers].filter(([name]) => DISPLAYED_HEADERS.test(name))
  return formatMessage(`\n${status} ${statusText}`, displayed, body)
}

function formatMessage(start: string, headers: [string, string][], body: string): string {
  return [start, ...headers.map(([name, value]) => `${name}: ${value}`), '', body, ''].join('\n')
}

/** One line, such as "Attempt 1: 503 overloaded (4 ms); next attempt in 1.15 s". */
export function formatAttempt(number: number, attempt: Attempt): string {
  const { status, code, error, tookMs, waitMs } = attempt
  const result = error ?? [status, code].filter(Boolean).join(' ')
  const next = waitMs === undefined ? '' : `; next attempt in ${waitMs / 1000} s`
  return `Attempt ${number}: ${result} (${tookMs} ms)${next}`
}

/** The result in one line. */
export function formatOutcome(key: string, { attempts, last, stopReason }: Outcome): string {
  if ('order' in last && last.order) {
    const result = last.replayed ? 'Replay of an existing order' : 'New order created'
    return `${result}. Idempotency key: ${key}`
  }
  const reason = formatReason(last)
  if (!stopReason) return `No order received: ${reason}`
  const limit =
    stopReason === 'maxAttempts'
      ? '--attempts allows no more'
      : 'the next one would exceed --max-time'
  return `No order received after ${formatCount(attempts.length, 'attempt')} (${limit}): ${reason} Retry with --key ${key}; this cannot create a second order.`
}

/**
 * Replaces control characters but line breaks: what a server sends must not control the terminal. JSON remains
 * JSON with the same values.
 */
export function escapeControls(text: string): string {
  return text.replaceAll(
    /(?!\n)\p{Cc}/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

function formatReason(result: OrderResponse | NetworkError): string {
  if ('error' in result) {
    const isRefused = result.error.includes('ECONNREFUSED')
    return `${result.error}.${isRefused ? ` ${START_HINT}` : ''}`
  }
  const { status, statusText, code = statusText, detail } = result
  return `${status} ${code}. ${detail ?? ''}`.replaceAll(/\s+/g, ' ').trim()
}

function formatCount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

/** Creates the object that `--json` prints. What is absent is `null`. */
export function createJsonReport(key: string, { attempts, last, stopReason }: Outcome) {
  const response = 'error' in last ? undefined : last
  return {
    key,
    attempts,
    stopReason: stopReason ?? null,
    status: response?.status ?? null,
    code: response?.code ?? null,
    detail: response?.detail ?? null,
    replayed: response?.replayed ?? false,
    order: response?.order ?? null,
  }
}

/** The counts of `--repeat`, one per line. */
export function formatRepeatCounts(summary: RepeatSummary): string {
  const rows: [string, number][] = [
    ['sent', summary.sent],
    ['first responses', summary.firstResponses],
    ['replays', summary.replays],
    ...Object.entries(summary.refusals).map(([name, count]): [string, number] => [
      `refused: ${name}`,
      count,
    ]),
    ['network errors', summary.networkErrors],
    ['distinct order ids', summary.orderIds.length],
    ['distinct bodies', summary.bodies.length],
  ]
  const width = Math.max(...rows.map(([name]) => name.length))
  return rows.map(([name, count]) => `${name.padEnd(width)} ${`${count}`.padStart(8)}`).join('\n')
}

/** Explains the refusals that are usual with `--repeat`, one per line. */
export function explainRefusals({ refusals }: RepeatSummary): string[] {
  const inProgress = refusals['request-in-progress']
  const limited = refusals['rate-limit-exceeded']
  return [
    inProgress
      ? `${formatCount(inProgress, 'request')} arrived while the first was in flight. A retry receives its response.`
      : [],
    limited
      ? `${formatCount(limited, 'request')} exceeded the rate limit. To allow more, start the service with RATE_LIMIT_MAX=100000.`
      : [],
  ].flat()
}

/** The result of `--repeat` in one line. */
export function formatRepeatResult(key: string, summary: RepeatSummary): string {
  const { sent, orderIds, bodies, networkErrors } = summary
  if (isExactlyOnce(summary))
    return `Sent ${formatCount(sent, 'time')}, created once: order ${orderIds[0]}.`
  if (networkErrors === sent) return `No response received. ${START_HINT}`
  if (orderIds.length === 0) return `No order received. Idempotency key: ${key}`
  return `NOT exactly once: ${formatCount(orderIds.length, 'order')}, ${bodies.length} different bodies. Idempotency key: ${key}`
}
