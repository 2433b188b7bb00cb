/** The API reference in Chromium: Swagger UI with signed requests. */
import type { Page } from 'playwright-core'
import { describe, expect, test } from 'vitest'
import { openPage, PLAIN_HOST } from '../support/browser.ts'
import { chromiumPath } from '../support/chromium.ts'
import { SECRET } from '../support/client.ts'
import { startService } from '../support/service.ts'

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

  test('asks again after a wrong secret and sends nothing without one', async () => {
    const { port } = await startService()
    const { page } = await openPage(port, '/docs')
    await tryOut(page)
    expect((await execute(page, 'a guess')).status()).toBe(401)
    await page.getByRole('button', { name: 'Execute' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click()
    await expect
      .poll(() => page.locator('.live-responses-table').textContent())
      .toContain('a request must be signed')
    expect((await execute(page, SECRET)).status()).toBe(201)
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

  test('explains why it cannot sign over plain HTTP', async () => {
    const { port } = await startService({ env: { HMAC_SECRET: 'not a published one' } })
    const { page } = await openPage(port, '/docs', { host: PLAIN_HOST })
    await page.getByText('This page cannot sign').waitFor()
  })
})
