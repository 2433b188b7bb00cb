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

/** The programs of docs/clients that use a library. */
const LIBRARIES = ['axios-retry', 'got', 'ky']

const locate = (name: string) =>
  fileURLToPath(new URL(`../../docs/clients/${name}.mjs`, import.meta.url))

describe('with the options of docs/clients.md', () => {
  test('each library creates one order although the first attempts fail', async () => {
    const { port, countOrders } = await startService()
    // All at once, because they mostly wait.
    const sent = LIBRARIES.map(async (name) => {
      // ky does not retry a response whose body is cut.
      const failures = name === 'ky' ? FAILURES.with(1, loseResponse) : FAILURES
      const { url, listArrivals } = await startUnreliableProxy(port, ...failures)
      const key = newKey()
      const env = { ORDER_URL: url }
      const command = [process.execPath, locate(name)]
      const { code, stdout, stderr } = await runClient(command, { key, body: BODY, env })
      expect({ name, code, stderr }).toEqual({ name, code: 0, stderr: '' })
      expect(JSON.parse(stdout).order).toMatchObject({ ...ORDER, idempotency_key: key })
      expectAttempts(listArrivals(key), BODY)
    })
    await Promise.all(sent)
    expect(await countOrders()).toBe(LIBRARIES.length)
  })

  test.each(LIBRARIES)('%s fails after one attempt that no retry can help', async (name) => {
    const command = [process.execPath, locate(name)]
    expect(await countFinalAttempts(command, BODY)).toEqual(ONE_ATTEMPT_EACH)
  })
})
