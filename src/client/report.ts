import type { Answer, NoAnswer } from './post-order.ts'
import { isExactlyOnce, type Tally } from './repeat-order.ts'
import type { Attempt, Outcome } from './send-order.ts'
import type { SignedOrder } from './sign.ts'

/** The headers of an answer that are about the request, rather than its delivery. */
const TELLING_HEADERS =
  /^(content-type|idempotency-replayed|location|retry-after|www-authenticate|x-ratelimit-.*|x-request-id)$/

export function requestText({ request, body }: SignedOrder): string {
  const sent = new TextDecoder().decode(body)
  return messageText(`${request.method} ${request.url}`, [...request.headers], sent)
}

export function answerText({ status, statusText, headers, body }: Answer): string {
  const telling = [...headers].filter(([name]) => TELLING_HEADERS.test(name))
  return messageText(`\n${status} ${statusText}`, telling, body)
}

function messageText(start: string, headers: [string, string][], body: string): string {
  return [start, ...headers.map(([name, value]) => `${name}: ${value}`), '', body, ''].join('\n')
}

/** One line, such as "Attempt 1: 503 overloaded, in 4 ms; the next in 1.15 s". */
export function attemptText(number: number, attempt: Attempt): string {
  const { status, code, error, tookMs, waitMs } = attempt
  const came = error ?? [status, code].filter(Boolean).join(' ')
  const next = waitMs === undefined ? '' : `; the next in ${waitMs / 1000} s`
  return `Attempt ${number}: ${came}, in ${tookMs} ms${next}`
}

/** How it ended, in one line. */
export function verdictText(key: string, { attempts, last, gaveUp }: Outcome): string {
  if ('order' in last && last.order) {
    return `${last.replayed ? 'A replay of the order' : 'A new order'}, under the key ${key}.`
  }
  const reason = reasonText(last)
  if (!gaveUp) return `No order: ${reason}`
  const tries = `${attempts.length} ${attempts.length === 1 ? 'attempt' : 'attempts'}`
  const bound =
    gaveUp === 'maxAttempts'
      ? '--attempts allows no more'
      : 'the next would come later than --max-time allows'
  return `No order after ${tries}, and ${bound}: ${reason} Sent again with --key ${key}, it is the same order.`
}

function reasonText(reply: Answer | NoAnswer): string {
  if ('error' in reply) return `${reply.error}.`
  const { status, statusText, code = statusText, detail } = reply
  return `${status} ${code}. ${detail ?? ''}`.replaceAll(/\s+/g, ' ').trim()
}

/** The same for programs: `null` for what there is not. */
export function outcomeForPrograms(key: string, { attempts, last, gaveUp }: Outcome) {
  const answer = 'error' in last ? undefined : last
  return {
    key,
    attempts,
    gaveUp: gaveUp ?? null,
    status: answer?.status ?? null,
    code: answer?.code ?? null,
    detail: answer?.detail ?? null,
    replayed: answer?.replayed ?? false,
    order: answer?.order ?? null,
  }
}

export function tallyText(tally: Tally): string {
  const rows: [string, number][] = [
    ['sent', tally.sent],
    ['first answers', tally.firstAnswers],
    ['replays', tally.replays],
    ...Object.entries(tally.refusals).map(([name, count]): [string, number] => [
      `refused: ${name}`,
      count,
    ]),
    ['network errors', tally.networkErrors],
    ['distinct order ids', tally.orderIds.length],
    ['distinct bodies', tally.bodies.length],
  ]
  const width = Math.max(...rows.map(([name]) => name.length))
  return rows.map(([name, count]) => `${name.padEnd(width)} ${`${count}`.padStart(8)}`).join('\n')
}

/** What a newcomer may wonder about, a line each. */
export function tallyHints({ refusals }: Tally): string[] {
  const busy = refusals['request-in-progress']
  const limited = refusals['rate-limit-exceeded']
  return [
    busy ? `${busy} came while the first was at work: sent again, they get its answer.` : [],
    limited
      ? `${limited} met the rate limit: to let all through, start the service with RATE_LIMIT_MAX=100000.`
      : [],
  ].flat()
}

/** What the tally shows, in one line. */
export function tallyVerdictText(key: string, tally: Tally): string {
  const { sent, orderIds, bodies } = tally
  if (isExactlyOnce(tally)) return `Sent ${sent} times, created once: the order ${orderIds[0]}.`
  if (orderIds.length === 0) return `No order came back under the key ${key}.`
  return `NOT exactly once: ${orderIds.length} orders in ${bodies.length} bodies under the key ${key}.`
}
