import { describe, expect, onTestFinished, test, vi } from 'vitest'
import {
  createMessageSigner,
  parseSigningKey,
  type SigningKey,
} from '../../src/client/message-signature.ts'
import { sendWithRetries } from '../../src/client/send-with-retries.ts'
import { signOrder } from '../../src/client/sign.ts'
import { newKey, ORDER } from '../support/client.ts'
import { writeClientsFile } from '../support/clients-file.ts'
import { createKey, createKeys } from '../support/message-signature.ts'
import { formatPrivateKey } from '../support/private-key.ts'
import { startService } from '../support/service.ts'
import { refuseWith, respondCreated, startScriptedServer } from './scripted-server.ts'

const BYTES = new TextEncoder().encode(JSON.stringify({ ...ORDER, item: 'büch' }))
const signNewOrder = (url: string, key: SigningKey) =>
  signOrder(url, newKey(), BYTES, createMessageSigner(key))

/** Sets the clock to a time at which only the test moves it. */
function mockDate() {
  vi.useFakeTimers({ toFake: ['Date'], now: 1_795_000_000_000 })
  onTestFinished(() => void vi.useRealTimers())
}

describe('an order that is signed with a key of the client', () => {
  test.each(createKeys())('is accepted: $algorithm', async (key) => {
    const { port, countOrders } = await startService({
      env: { CLIENTS_FILE: await writeClientsFile([{ id: 'shop-1', keys: [key] }]) },
    })
    const signingKey = parseSigningKey(formatPrivateKey(key))
    const order = signNewOrder(`http://127.0.0.1:${port}`, signingKey)
    expect((await sendWithRetries(order)).last).toMatchObject({ status: 201, replayed: false })
    expect((await sendWithRetries(order)).last).toMatchObject({ status: 201, replayed: true })
    expect(await countOrders()).toBe(1)
  })

  test.each([
    ['http://Example.com:80', 'http://example.com'],
    ['http://example.com:443', 'http://example.com'],
    ['https://example.com:80', 'https://example.com'],
  ])('does not cover the port of %s', (url, withoutPort) => {
    mockDate()
    const key = parseSigningKey(formatPrivateKey(createKey('key')))
    const [signature, expected] = [url, withoutPort].map((address) =>
      signOrder(address, 'key-001', BYTES, createMessageSigner(key))
        .createRequest()
        .headers.get('signature'),
    )
    expect(signature).toBe(expected)
  })

  test('is signed again for each attempt, with the time of the attempt', async () => {
    mockDate()
    const { url, requests } = await startScriptedServer(
      refuseWith(503, 'overloaded', { 'retry-after': '600' }),
      respondCreated,
    )
    const order = signNewOrder(url, parseSigningKey(formatPrivateKey(createKey('key'))))
    await sendWithRetries(order, {
      maxTimeMs: 3_600_000,
      random: () => 0,
      sleep: async (ms) => vi.advanceTimersByTime(ms),
    })
    const times = requests.map(({ headers }) => /created=\d+/.exec(`${headers['signature-input']}`))
    expect(times.map(String)).toEqual(['created=1795000000', 'created=1795000600'])
  })
})

describe('a file without a usable key is refused with its place and rule:', () => {
  const key = createKey('key')
  const jwk = JSON.parse(formatPrivateKey(key))
  const { d: otherD } = JSON.parse(formatPrivateKey(createKey('other')))
  const [p256, otherP256] = ['key', 'other'].map((kid) =>
    JSON.parse(formatPrivateKey(createKey(kid, 'ecdsa-p256-sha256'))),
  )

  test.each<[string, string]>([
    ['the key must be one JSON object', `${JSON.stringify(jwk)}\n{"id":"shop-1","keys":[]}\n`],
    ['the key must be one JSON object', '[]'],
    ['kid must be 1 to 255 ASCII characters', JSON.stringify({ ...jwk, kid: undefined })],
    ['kid must be 1 to 255 ASCII characters', JSON.stringify({ id: 'shop-1', keys: [jwk] })],
    ['kty must be oct, OKP or EC', JSON.stringify({ ...jwk, kty: 'RSA' })],
    ['crv must be Ed25519', JSON.stringify({ ...jwk, crv: 'X25519' })],
    ['x must be base64url of 32 bytes', JSON.stringify({ ...jwk, x: 'AA' })],
    ['d must be here: it is the private key', JSON.stringify(key.jwk)],
    ['d must be the private key of the public key', JSON.stringify({ ...jwk, d: 'AA' })],
    ['d must be the private key of the public key', JSON.stringify({ ...jwk, d: otherD })],
    ['k must be base64url of 32 bytes or more', '{"kid":"key","kty":"oct","k":"AA"}'],
    ...['', 'AA', `${'_'.repeat(42)}8`, otherP256.d].map((d): [string, string] => [
      'd must be the private key of the public key',
      JSON.stringify({ ...p256, d }),
    ]),
  ])('%s', (line, text) => {
    let refusal = ''
    try {
      parseSigningKey(text)
    } catch (error) {
      const { member = 'the key', message } = error as Error & { member?: string }
      refusal = `${member} ${message}`
    }
    expect(refusal).toContain(line)
  })
})
