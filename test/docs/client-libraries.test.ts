import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { newKey, ORDER } from '../support/client.ts'
import { startService } from '../support/service.ts'
import {
  countFinalAttempts,
  expectAttempts,
  FAILURES,
  loseResponse,
  ONE_ATTEMPT_EACH,
  runClient,
  startUnreliableProxy,
} from './unreliable-proxy.ts'

const BODY = JSON.stringify(ORDER)

/** Three programs at a time, on a slow machine. */
const TIMEOUT_MS = 120_000

describe.each(['axios-retry', 'got', 'ky'])(
  '%s with the options of docs/clients.md',
  { timeout: TIMEOUT_MS },
  (name) => {
    const program = fileURLToPath(new URL(`../../docs/clients/${name}.mjs`, import.meta.url))
    const command = [process.execPath, program]

    test('creates one order although the first attempts fail', async () => {
      const { port, countOrders } = await startService()
      // ky does not retry a response whose body is cut.
      const failures = name === 'ky' ? FAILURES.with(1, loseResponse) : FAILURES
      const { url, listArrivals } = await startUnreliableProxy(port, ...failures)
      const key = newKey()
      const env = { ORDER_URL: url }
      const { code, stdout, stderr } = await runClient(command, { key, body: BODY, env })
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(JSON.parse(stdout).order).toMatchObject({ ...ORDER, idempotency_key: key })
      expectAttempts(listArrivals(key), BODY)
      expect(await countOrders()).toBe(1)
    })

    test('fails after one attempt that no retry can help', async () => {
      expect(await countFinalAttempts(command, BODY)).toEqual(ONE_ATTEMPT_EACH)
    })
  },
)
