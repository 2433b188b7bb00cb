/** The API reference in Chromium: Swagger UI with signed requests. */
import {
  createHash,
  createHmac,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  verify,
} from 'node:crypto'
import type { Page } from 'playwright-core'
import { describe, expect, test } from 'vitest'
import { PROBLEM_CODES } from '../../src/http/problems.ts'
import { findAccessibilityFaults, openPage, PLAIN_HOST } from '../support/browser.ts'
import { chromiumPath } from '../support/chromium.ts'
import { SECRET, sign } from '../support/client.ts'
import { startService } from '../support/service.ts'

/** Each algorithm: creates a key, and verifies a signature. */
const ALGORITHMS: [
  name: string,
  createPair: () => { privateJwk: object; publicKey: KeyObject | Buffer },
  // biome-ignore lint/suspicious/noExplicitAny: of the type that createPair returns
  verify: (key: any, data: Buffer, signature: Buffer) => boolean,
][] = [
  [
    'hmac-sha256',
    () => {
      const secret = randomBytes(32)
      return { privateJwk: { kty: 'oct', k: secret.toString('base64url') }, publicKey: secret }
    },
    (key: Buffer, data, signature) =>
      createHmac('sha256', key).update(data).digest().equals(signature),
  ],
  [
    'ed25519',
    () => exportPair(generateKeyPairSync('ed25519')),
    (key: KeyObject, data, signature) => verify(null, data, key, signature),
  ],
  [
    'ecdsa-p256-sha256',
    () => exportPair(generateKeyPairSync('ec', { namedCurve: 'P-256' })),
    (key: KeyObject, data, signature) =>
      verify('sha256', data, { key, dsaEncoding: 'ieee-p1363' }, signature),
  ],
]

const exportPair = ({
  privateKey,
  publicKey,
}: {
  privateKey: KeyObject
  publicKey: KeyObject
}) => ({
  privateJwk: privateKey.export({ format: 'jwk' }),
  publicKey,
})

/** Opens the form of `POST /orders`. */
async function tryOut(page: Page) {
  await page.locator('#operations-Orders-createOrder .opblock-summary-control').click()
  await page.getByRole('button', { name: 'Try it out' }).click()
}

/** Presses Execute, enters the secret if one is given, and returns the response. */
async function execute(page: Page, secret?: string) {
  const response = page.waitForResponse((candidate) => candidate.url().endsWith('/orders'))
  await page.getByRole('button', { name: 'Execute' }).click()
  if (secret !== undefined) {
    await page.getByLabel('Shared secret').fill(secret)
    await page.getByRole('button', { name: 'Sign and send' }).click()
  }
  return response
}

describe.runIf(chromiumPath)('the API reference in a browser', () => {
  test('asks for the secret once and signs: Execute creates an order, a second Execute replays it', async () => {
    const { port, countOrders } = await startService()
    const { page, complaints, foreignRequests } = await openPage(port, '/docs/')
    await tryOut(page)

    const first = await execute(page, SECRET)
    expect(first.status()).toBe(201)
    expect(first.headers()).not.toHaveProperty('idempotency-replayed')
    const second = await execute(page)
    expect(second.status()).toBe(201)
    expect(second.headers()).toMatchObject({ 'idempotency-replayed': 'true' })
    expect(await second.text()).toBe(await first.text())
    expect(await countOrders()).toBe(1)

    const shown = page.locator('.live-responses-table')
    await expect.poll(() => shown.textContent()).toContain('idempotency-replayed: true')
    expect(await page.locator('.curl').textContent()).toMatch(/X-Signature: [0-9a-f]{64}'/)
    expect(complaints).toEqual([])
    expect(foreignRequests).toEqual([])
  })

  test('starts with a new Idempotency-Key, and a button creates the next', async () => {
    const { port, countOrders } = await startService()
    const { page } = await openPage(port, '/docs')
    await tryOut(page)
    const key = page.getByPlaceholder('Idempotency-Key')
    const firstKey = await key.inputValue()
    expect(firstKey).toMatch(/^key-[0-9a-f]{32}$/)
    await execute(page, SECRET)

    await page.getByRole('button', { name: 'New key' }).click()
    await expect.poll(() => key.inputValue()).not.toBe(firstKey)
    const response = await execute(page)
    expect(response.headers()).not.toHaveProperty('idempotency-replayed')
    expect(await countOrders()).toBe(2)
  })

  test('signs a body that was edited', async () => {
    const { port } = await startService()
    const { page } = await openPage(port, '/docs')
    await tryOut(page)
    await page
      .locator('.body-param__text')
      .fill('{"amount":0.5,\n "item":"Bücher ☕", "user_id":"u"}')
    const response = await execute(page, SECRET)
    expect(response.status()).toBe(201)
    expect(await response.json()).toMatchObject({ order: { item: 'Bücher ☕', amount: 0.5 } })
  })

  test('asks again after a wrong secret', async () => {
    const { port } = await startService()
    const { page } = await openPage(port, '/docs')
    await tryOut(page)
    expect((await execute(page, 'a guess')).status()).toBe(401)
    expect((await execute(page, SECRET)).status()).toBe(201)
  })

  test.each(['Cancel', 'Escape'])('sends nothing after %s, and can send then', async (way) => {
    const { port, countOrders } = await startService()
    const { page, complaints } = await openPage(port, '/docs')
    await tryOut(page)
    for (let i = 0; i < 2; i++) {
      await page.getByRole('button', { name: 'Execute' }).click()
      await page.getByLabel('Shared secret').fill(SECRET)
      if (way === 'Cancel')
        await page.getByRole('button', { name: way, exact: true }).last().click()
      else await page.keyboard.press(way)
      await page.getByText('Not sent: a request must be signed.').waitFor()
    }
    expect(await countOrders()).toBe(0)
    expect((await execute(page, SECRET)).status()).toBe(201)
    expect(complaints).toEqual([])
  })

  test.each(ALGORITHMS)(
    'signs with a private key as a JWK: %s',
    async (_name, createPair, verify) => {
      const { port } = await startService()
      const { page } = await openPage(port, '/docs')
      await tryOut(page)
      const { privateJwk, publicKey } = createPair()
      const response = await execute(
        page,
        JSON.stringify({ kid: 'shop-1', ...privateJwk }, null, 2),
      )
      const headers = await response.request().allHeaders()
      const body = response.request().postData() ?? ''
      const input = headers['signature-input']?.replace(/^sig1=/, '') ?? ''
      expect(input).toMatch(
        /^\("@method" "@authority" "@path" "content-digest" "content-type" "idempotency-key"\);created=\d{10};keyid="shop-1"$/,
      )
      const digest = `sha-256=:${createHash('sha256').update(body).digest('base64')}:`
      const base = [
        '"@method": POST',
        `"@authority": 127.0.0.1:${port}`,
        '"@path": /orders',
        `"content-digest": ${digest}`,
        '"content-type": application/json',
        `"idempotency-key": ${headers['idempotency-key']}`,
        `"@signature-params": ${input}`,
      ].join('\n')
      expect(headers['content-digest']).toBe(digest)
      const signature = headers.signature?.match(/^sig1=:(.+):$/)?.[1] ?? ''
      expect(verify(publicKey, Buffer.from(base), Buffer.from(signature, 'base64'))).toBe(true)
    },
  )

  test.each([
    ['{"kty":', 'The key is not JSON.'],
    ['{"kty":"OKP","crv":"Ed25519"}', 'The key has no kid'],
    ['{"kid":"k","kty":"RSA"}', 'The kty of the key is not oct, OKP or EC.'],
    ['{"kid":"k","kty":"OKP","crv":"Ed25519","x":"AA"}', 'The key is not private'],
    ['{"kid":"k","kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}', 'cannot import the key'],
  ])('says what is wrong with the key %s', async (key, message) => {
    const { port } = await startService()
    const { page } = await openPage(port, '/docs')
    await tryOut(page)
    await page.getByRole('button', { name: 'Execute' }).click()
    await page.getByLabel('Shared secret').fill(key)
    await page.getByRole('button', { name: 'Sign and send' }).click()
    await page.getByRole('alert').getByText(message).waitFor()
  })

  test('keeps the secret only in memory', async () => {
    const { port } = await startService()
    const { page } = await openPage(port, '/docs')
    await tryOut(page)
    await execute(page, SECRET)
    expect(await page.evaluate('localStorage.length + sessionStorage.length')).toBe(0)
    expect(await page.evaluate('document.cookie')).toBe('')
    await page.reload() // the path of the operation is in the URL, so it is open already
    await page.getByRole('button', { name: 'Try it out' }).click()
    await page.getByRole('button', { name: 'Execute' }).click()
    await page.getByLabel('Shared secret').waitFor()
  })

  test('explains why it cannot sign over plain HTTP, and sends what was signed elsewhere', async () => {
    const secret = 'not a published one'
    const { port } = await startService({ env: { HMAC_SECRET: secret } })
    const { page } = await openPage(port, '/docs', { host: PLAIN_HOST })
    await page.getByText('This page cannot sign').waitFor()
    await tryOut(page)
    await page.getByRole('button', { name: 'Execute' }).click()
    await page.getByText('Not sent: enter an X-Signature.').waitFor()

    const body = await page.getByLabel('Body', { exact: true }).inputValue()
    await page.getByLabel('X-Signature').fill(sign(body, secret))
    expect((await execute(page)).status()).toBe(201)
  })

  test('shows an open operation on about three screens: one example of problems, and a table', async () => {
    const { port } = await startService()
    const { page } = await openPage(port, '/docs')
    await page.setViewportSize({ width: 1280, height: 900 })
    const operation = page.locator('#operations-Orders-createOrder')
    await operation.locator('.opblock-summary-control').click()
    const rows = operation.locator('.problems tbody tr')
    // All but `order-not-found`, which only reading causes.
    await expect.poll(() => rows.count()).toBe(PROBLEM_CODES.length - 1)
    expect(await rows.first().innerText()).toMatch(
      /^400\s+idempotency-key-missing\s+You choose a key/,
    )
    expect((await operation.boundingBox())?.height).toBeLessThan(3.3 * 900)
    await operation
      .getByRole('combobox')
      .last()
      .selectOption({ label: 'The body is not a valid order' })
    await operation.getByText('"code": "invalid-body"').waitFor()
    expect(await operation.getByText('openssl dgst -sha256 -hmac').count()).toBe(1)
  })

  test.each(['light', 'dark'] as const)(
    'is accessible with %s colours, with an open form and with its dialog',
    async (colorScheme) => {
      const { port } = await startService()
      const { page } = await openPage(port, '/docs', { colorScheme })
      await tryOut(page)
      expect(await page.getByRole('main').count()).toBe(1)
      expect(await findAccessibilityFaults(page)).toEqual([])
      await page.getByRole('button', { name: 'Execute' }).click()
      await page.getByLabel('Shared secret').waitFor()
      expect(await findAccessibilityFaults(page)).toEqual([])
    },
  )
})
