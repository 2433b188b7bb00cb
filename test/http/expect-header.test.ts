import { describe, expect, test } from 'vitest'
import { ORDER, send } from '../support/client.ts'
import { formatOrder, openSocket } from '../support/raw-socket.ts'
import { startService } from '../support/service.ts'
import { until } from '../support/until.ts'

const MAX_BODY_BYTES = 65_536
const formatHeaders = (length: number) =>
  formatOrder({ lines: [`Content-Length: ${length}`, 'Expect: 100-continue'], payload: '' })

describe('the Expect header', () => {
  test('gets 100, and the order 201', async () => {
    const { port, countOrders } = await startService()
    const body = JSON.stringify(ORDER)
    const client = openSocket(port, formatHeaders(body.length))
    await until(() => client.responses().length === 1)
    client.socket.write(body)
    await until(() => client.responses().length === 2)
    expect(client.responses().map(({ status }) => status)).toEqual([100, 201])
    expect(await countOrders()).toBe(1)
  })

  test('gets 100 for the largest body, and 413 for a larger one', async () => {
    const { port } = await startService()
    const largest = openSocket(port, formatHeaders(MAX_BODY_BYTES))
    await until(() => largest.responses()[0]?.status === 100)
    const tooLarge = openSocket(port, formatHeaders(MAX_BODY_BYTES + 1))
    await until(tooLarge.isClosed)
    expect(tooLarge.responses().map(({ status }) => status)).toEqual([413])
    expect(JSON.parse(tooLarge.responses()[0]?.text ?? '')).toMatchObject({
      code: 'body-too-large',
    })
  })

  test('is ignored if its value is unknown', async () => {
    const { port } = await startService()
    expect((await send(port, { headers: { expect: 'a miracle' } })).status).toBe(201)
  })
})
