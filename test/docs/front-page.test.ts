import { describe, expect, test } from 'vitest'
import { get, send } from '../support/client.ts'
import { startService } from '../support/service.ts'

const BROWSER = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8'
const STORES = { orders: 'Postgres', answers: 'Redis', limits: 'memory <of> this process' }

describe('the front page', () => {
  test('is a page for a browser', async () => {
    const { port } = await startService()
    const reply = await get(port, '/', BROWSER)
    expect(reply.status).toBe(200)
    expect(reply.headers).toMatchObject({
      'content-type': 'text/html; charset=utf-8',
      vary: 'Accept',
    })
    expect(reply.text).toMatch(/^<!doctype html>\n<html lang="en">/)
  })

  test.each([undefined, '*/*', 'application/json'])(
    'is JSON with the same links for a program that accepts %s',
    async (accept) => {
      const { port } = await startService({ storesInUse: STORES })
      const { status, headers, json } = await get(port, '/', accept)
      expect(status).toBe(200)
      expect(headers).toMatchObject({
        'content-type': 'application/json; charset=utf-8',
        vary: 'Accept',
      })
      expect(json).toMatchObject({ name: 'order-once', stores: STORES })
      const page = await get(port, '/', BROWSER)
      const links = [...page.text.matchAll(/<a href="([^"]+)"/g)].map(([, path]) => path)
      expect(links).toEqual(['/docs', '/openapi.json', '/health/ready', '/metrics'])
      expect(Object.values(json.links)).toEqual(links)
    },
  )

  test('tells which stores are in use', async () => {
    const { port } = await startService({ storesInUse: STORES })
    const { text } = await get(port, '/', BROWSER)
    expect(text).toContain('<dt>Orders</dt><dd>Postgres</dd>')
    expect(text).toContain('<dt>Keys and answers</dt><dd>Redis</dd>')
    expect(text).toContain('<dt>Rate limits</dt><dd>memory &#60;of&#62; this process</dd>')
  })

  test('leads to the metrics only if they are there', async () => {
    const { port } = await startService({ env: { METRICS_PORT: '9464' } })
    expect((await get(port, '/')).json.links).not.toHaveProperty('metrics')
    expect((await get(port, '/', BROWSER)).text).not.toContain('/metrics')
  })

  test('tells the secret of development, and no other', async () => {
    const development = await startService()
    expect((await get(development.port, '/', BROWSER)).text).toContain('super-secret-key')
    const secret = 'a secret that nobody else knows'
    const other = await startService({ env: { HMAC_SECRET: secret } })
    for (const path of ['/', '/docs']) {
      const { text } = await get(other.port, path, BROWSER)
      expect(text).not.toContain(secret)
      expect(text).not.toContain('super-secret-key')
    }
  })

  test('takes GET and HEAD, and answers 405 to the rest', async () => {
    const { port } = await startService()
    const reply = await send(port, { path: '/' })
    expect(reply).toMatchObject({ status: 405, json: { code: 'method-not-allowed' } })
    expect(reply.headers.allow).toBe('GET, HEAD')
  })
})

describe.each(['/', '/docs'])('the page %s', (path) => {
  test('has a strict Content-Security-Policy', async () => {
    const { port } = await startService()
    const { headers } = await get(port, path, BROWSER)
    const policy = String(headers['content-security-policy']).split(';')
    const hash = `'sha256-[\\w+/]{43}='`
    expect(policy).toEqual([
      "default-src 'none'",
      "script-src 'self'",
      expect.stringMatching(new RegExp(`^style-src 'self' ${hash} ${hash}$`)),
      'img-src data:',
      "connect-src 'self'",
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ])
    expect(headers['x-content-type-options']).toBe('nosniff')
  })

  test('takes its assets from the service, which a browser need not load twice', async () => {
    const { port } = await startService()
    const { text } = await get(port, path, BROWSER)
    const assets = [...text.matchAll(/<(?:script|link)[^>]* (?:src|href)="([^"]+)"/g)]
      .map(([, url = '']) => url)
      .filter((url) => url !== 'data:,')
    expect(assets).not.toHaveLength(0)
    for (const asset of assets) {
      expect(asset).toMatch(/^\/assets\//)
      const { status, headers } = await get(port, asset)
      expect(status).toBe(200)
      expect(headers['content-type']).toMatch(
        asset.endsWith('.css') ? /^text\/css/ : /^text\/javascript/,
      )
      const again = await send(port, {
        method: 'GET',
        path: asset,
        headers: { 'if-none-match': headers.etag as string },
      })
      expect(again).toMatchObject({ status: 304, text: '' })
    }
  })

  test('is not there with DOCS=off', async () => {
    const { port } = await startService({ env: { DOCS: 'off' } })
    expect(await get(port, path, BROWSER)).toMatchObject({
      status: 404,
      headers: { 'content-type': 'application/problem+json; charset=utf-8' },
      json: { code: 'not-found' },
    })
  })
})

test.each(['tsconfig.json', '..%2fserver.js', 'constructor'])(
  'the file %s is no asset',
  async (name) => {
    const { port } = await startService()
    expect(await get(port, `/assets/${name}`)).toMatchObject({
      status: 404,
      json: { code: 'not-found' },
    })
  },
)
