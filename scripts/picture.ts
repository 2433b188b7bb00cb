/** `npm run picture`: makes the picture in the README, with Chromium, of a service that listens on port 8080. */
import { writeFile } from 'node:fs/promises'
import { chromium } from 'playwright-core'
import { DEVELOPMENT_SECRET } from '../src/secret.ts'
import { chromiumPath } from '../test/support/chromium.ts'

/** In px. The columns of the page are then beside each other. */
const WIDTH = 1000
/** Letters are sharp, and the file has less than 60 kB. */
const QUALITY_PERCENT = 60

if (chromiumPath === undefined) throw new Error('no Chromium was found: set CHROMIUM_PATH')
// The sandbox does not work for root.
const browser = await chromium.launch({ executablePath: chromiumPath, args: ['--no-sandbox'] })
const page = await browser.newPage({ viewport: { width: WIDTH, height: 2 * WIDTH } })
await page.goto(process.env.ORDER_URL ?? 'http://127.0.0.1:8080')
await page.getByLabel('Shared secret').fill(DEVELOPMENT_SECRET)
await page.getByRole('button', { name: 'Sign and send twice' }).click()
await page.getByText('One order. Both responses are the same').waitFor()
const box = await page.locator('main').boundingBox()
if (box === null) throw new Error('the page shows nothing')
// Playwright makes no WebP, which is smaller here than a PNG or a JPEG.
const { data } = await (await page.context().newCDPSession(page)).send('Page.captureScreenshot', {
  format: 'webp',
  quality: QUALITY_PERCENT,
  clip: { ...box, scale: 1 },
})
await writeFile('docs/front-page.webp', Buffer.from(data, 'base64'))
await browser.close()
