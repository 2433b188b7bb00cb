import { find } from './find.ts'
import { cannotSign, newKey, sign, signingKey } from './signing.ts'

const form = find('order', HTMLFormElement)
const secret = find('secret', HTMLInputElement)
const userId = find('user_id', HTMLInputElement)
const item = find('item', HTMLInputElement)
const amount = find('amount', HTMLInputElement)
const key = find('key', HTMLInputElement)
const sendButton = find('send', HTMLButtonElement)
const verdict = find('verdict', HTMLElement)
const exchange = find('exchange', HTMLElement)
const request = find('request', HTMLElement)
const answer = find('answer', HTMLElement)
const replay = find('replay', HTMLElement)

/** Of no interest to whoever looks at an answer. */
const OF_THE_CONNECTION = new Set(['connection', 'keep-alive'])

key.value = newKey()
find('new-key', HTMLButtonElement).addEventListener('click', () => {
  key.value = newKey()
})

if (cannotSign) {
  verdict.textContent = cannotSign
  sendButton.disabled = true
}

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  sendButton.disabled = true
  try {
    verdict.textContent = await sendTwice()
  } catch (error) {
    verdict.textContent = `This did not work: ${(error as Error).message}.`
  } finally {
    sendButton.disabled = false
  }
})

/** Sends the order of the form, sends it again, and shows both. @returns what came of it */
async function sendTwice(): Promise<string> {
  const body = JSON.stringify({
    user_id: userId.value,
    item: item.value,
    amount: amount.valueAsNumber,
  })
  const headers = {
    'Content-Type': 'application/json',
    'Idempotency-Key': key.value,
    'X-Signature': await sign(body, await signingKey(secret.value)),
  }
  show(request, 'POST /orders', Object.entries(headers), body)
  answer.textContent = replay.textContent = ''
  exchange.hidden = false

  const first = await send(answer, headers, body)
  if (!first.ok) return `Refused: ${JSON.parse(first.text).detail}`
  const second = await send(replay, headers, body)
  if (!second.ok)
    return `The order exists; the repeat was refused: ${JSON.parse(second.text).detail}`
  return first.text === second.text
    ? 'One order. Both answers are the same, byte for byte.'
    : 'The answers differ, which they never should.'
}

/** Sends one request, and shows its answer where it is wanted. */
async function send(place: HTMLElement, sent: Record<string, string>, body: string) {
  const response = await fetch('/orders', { method: 'POST', headers: sent, body })
  const text = await response.text()
  const headers = [...response.headers].filter(([name]) => !OF_THE_CONNECTION.has(name))
  show(place, `${response.status} ${response.statusText}`, headers, text)
  return { ok: response.ok, text }
}

function show(place: HTMLElement, firstLine: string, headers: [string, string][], body: string) {
  const lines = headers.map(([name, value]) => {
    const line = document.createElement(name === 'idempotency-replayed' ? 'mark' : 'span')
    line.textContent = `${name}: ${value}\n`
    return line
  })
  place.replaceChildren(`${firstLine}\n`, ...lines, `\n${body}`)
}
