// Sends one order with axios and axios-retry: node axios-retry.mjs <idempotency key> <body>
import { createHmac } from 'node:crypto'
import axios from 'axios'
import axiosRetry from 'axios-retry'

const { ORDER_URL = 'http://127.0.0.1:8080', HMAC_SECRET = 'super-secret-key' } = process.env
const [key, body] = process.argv.slice(2)

const client = axios.create({ baseURL: ORDER_URL, timeout: 15_000, maxRedirects: 0 })
axiosRetry(client, {
  retries: 8, // without Retry-After and jitter, the waits are 51 s: long enough for a restart
  shouldResetTimeout: true, // the 15 s are for one attempt: longer than the wait=10 of Prefer
  retryDelay: axiosRetry.exponentialDelay, // at least Retry-After
  retryCondition({ code, request, response }) {
    // Without a request, an option or the URL is wrong.
    if (!response) return request !== undefined && code !== 'ERR_CANCELED'
    const retryAfter = response.headers['retry-after']
    if (retryAfter > 60) return false // a longer wait than a minute is for the caller to decide
    if (response.status === 409) return retryAfter !== undefined
    // An error with a status below 300: the body is cut.
    return [408, 429].includes(response.status) || response.status < 300 || response.status >= 500
  },
})

const response = await client.post('/orders', body, {
  headers: {
    'Content-Type': 'application/json',
    'Idempotency-Key': key,
    Prefer: 'wait=10',
    'X-Signature': createHmac('sha256', HMAC_SECRET).update(body).digest('hex'),
  },
  transformRequest: (text) => text, // the bytes that were signed
  transformResponse: (text) => text,
})
console.log(response.data)
