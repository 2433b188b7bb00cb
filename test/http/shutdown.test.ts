import { once } from 'node:events'
import { expect, test } from 'vitest'
import { get, open, send } from '../support/client.ts'
import { createGate, delayInserts } from '../support/gate.ts'
import { formatOrder, openSocket } from '../support/raw-socket.ts'
import { startService } from '../support/service.ts'
import { until } from '../support/until.ts'

test.each([
  ['on which nothing was sent', ''],
  ['in the middle of headers', 'GET / HTTP/1.1\r\nHost'],
  ['in the middle of a body', formatOrder({ payload: '{' })],
])(
  'a closing app closes a connection %s soon, and others after their response',
  async (_name, bytes) => {
    const gate = createGate()
    const { app, port } = await startService({ wrapOrders: delayInserts(gate) })
    const unused = openSocket(port, bytes)
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
  },
)

test('a closing app responds with 503 to a request on a connection that was idle', async () => {
  const { app, port } = await startService()
  const client = openSocket(port, 'GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n')
  await until(() => client.responses().length === 1)
  const closing = app.close()
  client.socket.write(formatOrder())
  await until(client.isClosed)
  expect(client.responses()[1]).toMatchObject({
    status: 503,
    headers: { connection: 'close', 'retry-after': '1' },
  })
  await closing
})

test('a closing app finishes the order of a client that has disconnected', async () => {
  const gate = createGate()
  const { app, port, logLines, countOrders } = await startService({
    wrapOrders: delayInserts(gate),
  })
  const order = open(port)
  order.on('error', () => {})
  await until(() => gate.arrived === 1)
  order.destroy()
  let isClosed = false
  const closing = app.close().then(() => {
    isClosed = true
  })
  await until(() => !app.server.listening)
  expect(isClosed).toBe(false)
  gate.open()
  await closing
  expect(await countOrders()).toBe(1)
  expect(logLines.filter(({ level }) => Number(level) >= 50)).toEqual([])
})
