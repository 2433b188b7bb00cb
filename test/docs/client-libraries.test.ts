import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { newKey, ORDER } from '../support/client.ts'
import { startService } from '../support/service.ts'
import {
  listUselessRetries,
  loseResponse,
  respond,
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
      const { url, listArrivals } = await startUnreliableProxy(
        port,
        ...[loseResponse, respond(503, '1'), respond(429), respond(409, '0')],
      )
      const key = newKey()
      const env = { ORDER_URL: url }
      const { code, stdout, stderr } = await runClient(command, { key, body: BODY, env })
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(JSON.parse(stdout).order).toMatchObject({ ...ORDER, idempotency_key: key })
      const arrivals = listArrivals(key)
      expect(arrivals.map(({ body }) => body)).toEqual(Array(5).fill(BODY))
      const times = arrivals.map(({ at }) => at)
      expect((times[2] as number) - (times[1] as number)).toBeGreaterThanOrEqual(990) // Retry-After: 1
      expect(await countOrders()).toBe(1)
    })

    test('fails after one attempt that no retry can help', async () => {
      const { port } = await startService()
      const attempts = listUselessRetries(BODY).map(async ({ body, script }) => {
        const { url, listArrivals } = await startUnreliableProxy(port, ...script)
        const key = newKey()
        const { code } = await runClient(command, { key, body, env: { ORDER_URL: url } })
        return { code, attempts: listArrivals(key).length }
      })
      expect(await Promise.all(attempts)).toEqual(Array(3).fill({ code: 1, attempts: 1 }))
    })
  },
)
