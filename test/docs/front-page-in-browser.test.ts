/** The front page in Chromium: its form sends an order twice. */
import { describe, expect, test } from 'vitest'
import { findAccessibilityFaults, openPage, PLAIN_HOST } from '../support/browser.ts'
import { chromiumPath } from '../support/chromium.ts'
import { SECRET } from '../support/client.ts'
import { startService } from '../support/service.ts'

describe.runIf(chromiumPath)('the front page in a browser', () => {
  test('sends a signed order twice and shows the request, the response and the replay', async () => {
    const { port, countOrders } = await startService()
    const { page, complaints, foreignRequests } = await openPage(port, '/')
    await page.getByLabel('Item').fill('Bücher ☕')
    await page.getByLabel('Shared secret').fill(SECRET)
    await page.getByRole('button', { name: 'Sign and send twice' }).click()
    await page.getByText('One order. Both responses are the same').waitFor()

    const readText = (id: string) => page.locator(id).innerText()
    const [request, response, replay] = await Promise.all(
      ['#request', '#response', '#replay'].map(readText),
    )
    expect(request).toMatch(/^POST \/orders\n.*X-Signature: [0-9a-f]{64}\n.*Bücher ☕/s)
    expect(response).toMatch(/^201 Created\n/)
    expect(response).not.toContain('idempotency-replayed')
    expect(replay).toMatch(/^201 Created\n.*\nidempotency-replayed: true\n/s)
    expect(readBody(replay)).toBe(readBody(response))
    expect(JSON.parse(readBody(replay))).toMatchObject({
      order: { item: 'Bücher ☕', amount: 500 },
    })
    expect(await countOrders()).toBe(1)
    expect(complaints).toEqual([])
    expect(foreignRequests).toEqual([])
  })

  test('creates a new key for a new order', async () => {
    const { port, countOrders } = await startService()
    const { page } = await openPage(port, '/')
    await page.getByLabel('Shared secret').fill(SECRET)
    for (const orders of [1, 2]) {
      await page.getByRole('button', { name: 'Sign and send twice' }).click()
      await expect.poll(countOrders).toBe(orders)
      await page.locator('#send:enabled').waitFor()
      await page.getByRole('button', { name: 'New key' }).click()
    }
  })

  test('shows why an order was refused', async () => {
    const { port } = await startService()
    const { page } = await openPage(port, '/')
    await page.getByLabel('Shared secret').fill('a guess')
    await page.getByRole('button', { name: 'Sign and send twice' }).click()
    await page.getByText('Refused: X-Signature must be').waitFor()
    expect(await page.locator('#response').innerText()).toMatch(/^401 Unauthorized\n/)
    expect(await page.getByRole('heading', { name: 'Replay' }).isVisible()).toBe(false)
  })

  test('shows nothing of the last order when the browser refuses a value of the next', async () => {
    const { port, countOrders } = await startService()
    const { page } = await openPage(port, '/')
    await page.getByLabel('Shared secret').fill(SECRET)
    const send = page.getByRole('button', { name: 'Sign and send twice' })
    await send.click()
    const verdict = page.getByText('One order. Both responses are the same')
    await verdict.waitFor()
    await page.getByLabel('Amount').fill('0')
    await send.click()
    await verdict.waitFor({ state: 'detached' })
    expect(await page.locator('#exchange').isVisible()).toBe(false)
    expect(await countOrders()).toBe(1)
  })

  test.each(['light', 'dark'] as const)(
    'is accessible with %s colours, before and after a send',
    async (colorScheme) => {
      const { port } = await startService()
      const { page } = await openPage(port, '/', { colorScheme })
      expect(await findAccessibilityFaults(page)).toEqual([])
      await page.getByLabel('Shared secret').fill(SECRET)
      await page.getByRole('button', { name: 'Sign and send twice' }).click()
      await page.getByText('One order. Both responses are the same').waitFor()
      expect(await findAccessibilityFaults(page)).toEqual([])
    },
  )

  test('links to pages that exist', async () => {
    const { port } = await startService()
    const { page } = await openPage(port, '/')
    const links = await page.locator('a').evaluateAll((all) => all.map(String))
    expect(links).toHaveLength(5)
    for (const link of links) expect((await fetch(link)).status).toBe(200)
  })

  test('explains why it cannot sign over plain HTTP', async () => {
    const { port } = await startService({ env: { HMAC_SECRET: 'not a published one' } })
    const { page } = await openPage(port, '/', { host: PLAIN_HOST })
    await page.getByText('This page cannot sign').waitFor()
    expect(await page.getByRole('button', { name: 'Sign and send twice' }).isDisabled()).toBe(true)
  })
})

const readBody = (exchange = '') => exchange.split('\n\n')[1] ?? ''
