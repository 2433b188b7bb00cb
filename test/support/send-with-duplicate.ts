/** Sends an order and a duplicate that waits for it. */
import { expect } from 'vitest'
import { newKey, send } from './client.ts'
import type { Gate } from './gate.ts'
import type { startInstance } from './service.ts'
import { until } from './until.ts'

type Instance = Awaited<ReturnType<typeof startInstance>>

/**
 * Sends an order to one instance and, while its insert waits at the gate, a duplicate to another one; then opens the
 * gate. Both get the same response.
 *
 * @returns their key and that response
 */
export async function sendWithDuplicate(stage: { gate: Gate; one: Instance; other: Instance }) {
  const { gate, one, other } = stage
  const key = newKey()
  const original = send(one.port, { key })
  await until(() => gate.arrived === 1)
  const duplicate = send(other.port, { key, headers: { prefer: 'wait=30' } })
  await until(async () => (await other.waiting()) === 1)
  gate.open()
  const first = await original
  expect(first.status).toBe(201)
  expect(await duplicate).toMatchObject({
    status: 201,
    text: first.text,
    headers: { 'idempotency-replayed': 'true' },
  })
  return { key, first }
}
