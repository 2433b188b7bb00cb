/** Pages of the service in a headless Chromium. */
import axe from 'axe-core'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, onTestFinished } from 'vitest'
import { chromiumPath } from './chromium.ts'

/** A name for this machine that browsers, unlike 127.0.0.1, do not trust without TLS. */
export const PLAIN_HOST = 'order-once.test'

const ARGS = [
  '--no-sandbox', // it visits nothing but the service, and CI runs as root
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  `--host-resolver-rules=MAP ${PLAIN_HOST} 127.0.0.1`,
]

/** A page that shares nothing with those of other tests, and what it should never do. */
export interface BrowserPage {
  page: Page
  /** errors, and what the Content-Security-Policy refused, as the console shows them */
  complaints: string[]
  /** requests to other hosts */
  foreignRequests: string[]
}

/** Opens a page of the service in a headless Chromium; closed when the test is finished. */
export async function openPage(
  port: number,
  path: string,
  {
    host = '127.0.0.1',
    colorScheme = 'light',
  }: { host?: string; colorScheme?: 'light' | 'dark' } = {},
): Promise<BrowserPage> {
  browser ??= launch()
  const context = await (await browser).newContext({ colorScheme })
  onTestFinished(() => context.close())
  const page = await context.newPage()
  const origin = `http://${host}:${port}`
  const complaints: string[] = []
  const foreignRequests: string[] = []
  page.on('pageerror', (error) => complaints.push(error.message))
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text())
  })
  page.on('request', (request) => {
    const url = new URL(request.url())
    if (url.origin !== origin && url.protocol !== 'data:') foreignRequests.push(url.href)
  })
  await page.goto(`${origin}${path}`)
  return { page, complaints, foreignRequests }
}

/** Finds what axe-core reports about a page, such as too little contrast: each rule, and the elements. */
export async function findAccessibilityFaults(page: Page) {
  await page.evaluate(axe.source)
  const { violations } = (await page.evaluate('axe.run()')) as axe.AxeResults
  return violations.map(({ id, nodes }) => ({
    id,
    elements: nodes.map(({ target }) => `${target}`),
  }))
}

let browser: Promise<Browser> | undefined

function launch(): Promise<Browser> {
  if (chromiumPath === undefined) throw new Error('there is no Chromium on this machine')
  return chromium.launch({ executablePath: chromiumPath, args: ARGS })
}

afterAll(async () => (await browser)?.close())
