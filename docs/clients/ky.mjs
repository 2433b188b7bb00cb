// Sends one order with ky: node ky.mjs <idempotency key> <body>
import { createHmac } from 'node:crypto'
import ky from 'ky'

const { ORDER_URL = 'http://127.0.0.1:8080', HMAC_SECRET = 'super-secret-key' } = process.env
const [key, body] = process.argv.slice(2)

const response = await ky.post(new URL('/orders', ORDER_URL), {
  body,
  headers: {
    'Content-Type': 'application/json',
    'Idempotency-Key': key,
    Prefer: 'wait=10',
    'X-Signature': createHmac('sha256', HMAC_SECRET).update(body).digest('hex'),
  },
  redirect: 'manual',
  timeout: 15_000, // for one attempt until its headers: longer than the wait=10 of Prefer
  signal: AbortSignal.timeout(120_000), // for all attempts and the body
  retry: {
    limit: 10, // without Retry-After, the waits are at most 59 s: long enough for a restart
    methods: ['post'],
    statusCodes: [408, 409, 429, 500, 502, 503, 504],
    // Those with which the service sends Retry-After. With others ky would wait for X-RateLimit-Reset.
    afterStatusCodes: [409, 429, 503],
    backoffLimit: 10_000,
    jitter: true,
    retryOnTimeout: true,
    shouldRetry({ error: { response } }) {
      const retryAfter = response?.headers.get('retry-after')
      if (retryAfter > 60) return false // a longer wait than a minute is for the caller to decide
      if (response?.status === 409 && retryAfter === null) return false
    },
  },
})
console.log(await response.text())
