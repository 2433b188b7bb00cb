// Sends one order until its response is final: node order.mjs <idempotency key> <body>
import { createHash, createHmac, createPrivateKey, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const { ORDER_URL = 'http://127.0.0.1:8080', HMAC_SECRET = 'super-secret-key' } = process.env
const { CLIENT_KEY } = process.env
const [key, body] = process.argv.slice(2)
const url = new URL('/orders', ORDER_URL)

const hmac = (secret, text) => createHmac('sha256', secret).update(text).digest()

/** Makes the headers of the signature: X-Signature, or with a key of the client a message signature. */
function makeSignature() {
  if (!CLIENT_KEY) return { 'X-Signature': hmac(HMAC_SECRET, body).toString('hex') }
  const jwk = JSON.parse(readFileSync(CLIENT_KEY, 'utf8'))
  const components = {
    '@method': 'POST',
    '@authority': url.host,
    '@path': url.pathname,
    'content-digest': `sha-256=:${createHash('sha256').update(body).digest('base64')}:`,
    'content-type': 'application/json',
    'idempotency-key': key,
  }
  const names = Object.keys(components).map((name) => `"${name}"`)
  const created = Math.floor(Date.now() / 1000)
  const input = `(${names.join(' ')});created=${created};keyid="${jwk.kid}"`
  const lines = Object.entries(components).map(([name, value]) => `"${name}": ${value}\n`)
  const base = `${lines.join('')}"@signature-params": ${input}`
  if (jwk.d && jwk.crv !== 'Ed25519') {
    console.error(`${CLIENT_KEY}: the key must be Ed25519 or HMAC, not ${jwk.crv}`)
    process.exit(1)
  }
  const signature = jwk.d
    ? sign(null, Buffer.from(base), createPrivateKey({ key: jwk, format: 'jwk' })) // Ed25519
    : hmac(Buffer.from(jwk.k, 'base64url'), base)
  return {
    'Content-Digest': components['content-digest'],
    'Signature-Input': `sig1=${input}`,
    Signature: `sig1=:${signature.toString('base64')}:`,
  }
}

/** @returns undefined if no complete response arrived */
async function send() {
  const headers = {
    'Content-Type': 'application/json',
    'Idempotency-Key': key,
    Prefer: 'wait=10',
    ...makeSignature(), // again for each attempt, because it has a time
  }
  const signal = AbortSignal.timeout(15_000) // longer than the wait=10 of Prefer
  // Not in the try block: an invalid key is no reason for a retry.
  const request = new Request(url, { method: 'POST', headers, body, signal, redirect: 'manual' })
  try {
    const response = await fetch(request)
    const retryAfter = response.headers.get('retry-after')
    return { status: response.status, retryAfter, text: await response.text() }
  } catch (error) {
    console.error(error.cause?.message ?? error.message)
  }
}

const isRetryable = ({ status, retryAfter }) =>
  [408, 429].includes(status) || status >= 500 || (status === 409 && retryAfter !== null)

const endsAt = performance.now() + 120_000 // two windows of the rate limit
for (let backOffMs = 200; ; backOffMs = Math.min(2 * backOffMs, 10_000)) {
  const response = await send()
  if (response && !isRetryable(response)) {
    console.log(response.text)
    process.exitCode = response.status === 201 ? 0 : 1
    break
  }
  const waitMs = 1000 * (Number(response?.retryAfter) || 0) + Math.random() * backOffMs
  const result = response ? `status ${response.status}` : 'no response'
  console.error(`${result}; next attempt in ${Math.round(waitMs)} ms`)
  if (performance.now() + waitMs > endsAt) {
    process.exitCode = 1 // the result is unknown
    break
  }
  await sleep(waitMs)
}
