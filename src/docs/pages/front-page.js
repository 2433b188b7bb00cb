/** Sends the order of the form twice and shows the request and both responses. */
import { find } from './find.js'
import { createKey, importSecret, sign, signingError } from './signing.js'

/** Headers that describe the connection, not the response. */
const CONNECTION_HEADERS = new Set(['connection', 'keep-alive'])

const form = find('order', HTMLFormElement)
const secret = find('secret', HTMLInputElement)
const userId = find('user_id', HTMLInputElement)
const item = find('item', HTMLInputElement)
const amount = find('amount', HTMLInputElement)
const key = find('key', HTMLInputElement)
const newKeyButton = find('new-key', HTMLButtonElement)
const sendButton = find('send', HTMLButtonElement)
const verdict = find('verdict', HTMLElement)
const exchange = find('exchange', HTMLElement)
const requestBox = find('request', HTMLElement)
const responseBox = find('response', HTMLElement)
const replayBox = find('replay', HTMLElement)
const replaySection = find('replay-section', HTMLElement)

key.value = createKey()
newKeyButton.addEventListener('click', () => {
  key.value = createKey()
})

if (signingError) {
  verdict.textContent = signingError
  sendButton.disabled = true
}

// The browser refuses a value: what is shown belongs to an earlier order. (This event does not bubble.)
form.addEventListener('invalid', hideResult, { capture: true })

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  hideResult()
  sendButton.disabled = true
  try {
    verdict.textContent = await sendTwice()
  } catch (error) {
    verdict.textContent = `The request failed: ${/** @type {Error} */ (error).message}.`
  } finally {
    sendButton.disabled = false
  }
})

function hideResult() {
  verdict.textContent = ''
  exchange.hidden = replaySection.hidden = true
}

/** Sends the order, sends it again, shows both exchanges and returns the result in a sentence. */
async function sendTwice() {
  const body = JSON.stringify({
    user_id: userId.value,
    item: item.value,
    amount: amount.valueAsNumber,
  })
  const headers = {
    'Content-Type': 'application/json',
    'Idempotency-Key': key.value,
    'X-Signature': await sign(body, await importSecret(secret.value)),
  }
  show(requestBox, 'POST /orders', Object.entries(headers), body)
  responseBox.textContent = ''
  exchange.hidden = false

  const first = await send(responseBox, headers, body)
  if (!first.ok) return `Refused: ${JSON.parse(first.text).detail}`
  replayBox.textContent = ''
  replaySection.hidden = false
  const second = await send(replayBox, headers, body)
  if (!second.ok)
    return `The order exists; the repeat was refused: ${JSON.parse(second.text).detail}`
  return first.text === second.text
    ? 'One order. Both responses are the same, byte for byte.'
    : 'The responses differ. This is a fault of the service.'
}

/**
 * Sends one request and shows its response.
 *
 * @param {HTMLElement} box
 * @param {Record<string, string>} requestHeaders
 * @param {string} body
 */
async function send(box, requestHeaders, body) {
  const response = await fetch('/orders', { method: 'POST', headers: requestHeaders, body })
  const text = await response.text()
  const headers = [...response.headers].filter(([name]) => !CONNECTION_HEADERS.has(name))
  show(box, `${response.status} ${response.statusText}`, headers, text)
  return { ok: response.ok, text }
}

/**
 * @param {HTMLElement} box
 * @param {string} firstLine
 * @param {[string, string][]} headers
 * @param {string} body
 */
function show(box, firstLine, headers, body) {
  const lines = headers.map(([name, value]) => {
    const line = document.createElement(name === 'idempotency-replayed' ? 'mark' : 'span')
    line.textContent = `${name}: ${value}\n`
    return line
  })
  box.replaceChildren(`${firstLine}\n`, ...lines, `\n${body}`)
}
