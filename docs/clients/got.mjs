// Sends one order with got: node got.mjs <idempotency key> <body>
import { createHmac } from 'node:crypto'
import got from 'got'

const { ORDER_URL = 'http://127.0.0.1:8080', HMAC_SECRET = 'super-secret-key' } = process.env
const [key, body] = process.argv.slice(2)

const text = await got
  .post(new URL('/orders', ORDER_URL), {
    body,
    headers: {
      'Content-Type': 'application/json',
      'Idempotency-Key': key,
      Prefer: 'wait=10',
      'X-Signature': createHmac('sha256', HMAC_SECRET).update(body).digest('hex'),
    },
    followRedirect: false,
    timeout: { request: 15_000 }, // for one attempt: longer than the wait=10 of Prefer
    retry: {
      limit: 10, // without Retry-After, the waits are at most 53 s: long enough for a restart
      methods: ['POST'],
      errorCodes: [...got.defaults.options.retry.errorCodes, 'EHOSTUNREACH', 'ENETDOWN'],
      statusCodes: [408, 409, 429, 500, 502, 503, 504],
      maxRetryAfter: 60_000, // a longer wait is for the caller to decide
      calculateDelay({ attemptCount, error, retryAfter, computedValue }) {
        const isFinal =
          error.response?.statusCode === 409 && error.response.headers['retry-after'] === undefined
        if (computedValue === 0 || isFinal) return 0 // no further attempt
        const backOff = Math.random() * Math.min(10_000, 200 * 2 ** (attemptCount - 1))
        return (retryAfter ?? 0) + Math.max(1, backOff)
      },
    },
  })
  .text()
console.log(text)
