import { expect, test } from 'vitest'
import { send } from '../support/client.ts'
import { startService } from '../support/service.ts'
import { until } from '../support/until.ts'

test.each([
  ['203.0.113.1', '203.0.113.1'],
  ['203.0.113.1:5678', '203.0.113.1'],
  ['2001:db8::17', '2001:db8::'],
])(
  'the log line of a request has the address or network of its client: %s',
  async (client, address) => {
    const { port, logLines } = await startService({ env: { TRUST_PROXY: '127.0.0.1' } })
    await send(port, { signature: null, headers: { 'x-forwarded-for': client } })
    const line = await until(() => logLines.find(({ msg }) => msg === 'request'))
    expect(line).toMatchObject({ status: 401, address })
  },
)

test('an address that no trusted proxy sends is not in the log', async () => {
  const { port, logLines } = await startService()
  await send(port, { headers: { 'x-forwarded-for': '203.0.113.1' } })
  const line = await until(() => logLines.find(({ msg }) => msg === 'request'))
  expect(line).toMatchObject({ address: '127.0.0.1' })
})
