import { once } from 'node:events'
import { expect, test } from 'vitest'
import { get, send } from '../support/client.ts'
import { createGate, delayInserts } from '../support/gate.ts'
import { openSocket } from '../support/raw-socket.ts'
import { startService } from '../support/service.ts'
import { until } from '../support/until.ts'

test('a closing app closes unused connections at once, and others after their response', async () => {
  const gate = createGate()
  const { app, port } = await startService({ wrapOrders: delayInserts(gate) })
  const unused = openSocket(port)
  await once(unused.socket, 'connect')
  const order = send(port)
  await until(() => gate.arrived === 1)

  const closing = app.close()
  await until(unused.isClosed)
  // The limit for requests in flight would close them all: this response proves that it has not passed.
  gate.open()
  const response = await order
  expect(response.status).toBe(201)
  expect(response.headers.connection).toBe('close')
  await closing
  await expect(get(port, '/health/live')).rejects.toThrow('ECONNREFUSED')
})
