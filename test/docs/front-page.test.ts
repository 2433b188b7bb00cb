/** The pages over HTTP: their content, headers and files. */
import { describe, expect, test } from 'vitest'
import { renderPage } from '../../src/docs/pages.ts'
import { get, send } from '../support/client.ts'
import { writeClientsFile } from '../support/clients-file.ts'
import { startService } from '../support/service.ts'

const BROWSER = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8'

const getCompressed = (port: number, path: string) =>
  send(port, { method: 'GET', path, headers: { 'accept-encoding': 'gzip, deflate, br' } })

describe('the front page', () => {
  test('is HTML for a browser', async () => {
    const { port } = await startService()
    const reply = await get(port, '/', BROWSER)
    expect(reply.status).toBe(200)
    expect(reply.headers).toMatchObject({
      'content-type': 'text/html; charset=utf-8',
      vary: 'Accept',
    })
    // It would hold for all names of the operator's domain.
    expect(reply.headers).not.toHaveProperty('strict-transport-security')
    expect(reply.text).toMatch(/^<!doctype html>\n<html lang="en">/)
  })

  test.each([undefined, '*/*', 'application/json'])(
    'is JSON with the same links for a program that accepts %s',
    async (accept) => {
      const { port } = await startService()
      const { status, headers, json } = await get(port, '/', accept)
      expect(status).toBe(200)
      expect(headers).toMatchObject({
        'content-type': 'application/json; charset=utf-8',
        vary: 'Accept',
      })
      expect(json).toMatchObject({ name: 'order-once', description: expect.any(String) })
      const page = await get(port, '/', BROWSER)
      const links = [...page.text.matchAll(/<a href="([^"]+)"/g)].map(([, path]) => path)
      expect(links).toEqual(['/docs', '/openapi.json', '/problems', '/health/ready', '/metrics'])
      expect(Object.values(json.links)).toEqual(links)
    },
  )

  test.each([
    [{ redis: true }, { orders: 'Postgres', responses: 'Redis', limits: 'Redis' }],
    [
      { redis: false, env: { IDEMPOTENCY_STORE: 'postgres' } },
      { orders: 'Postgres', responses: 'Postgres', limits: 'memory of this process' },
    ],
  ])('names the stores in use with %j', async (variation, stores) => {
    const { port } = await startService(variation)
    expect((await get(port, '/')).json.stores).toEqual(stores)
    const { text } = await get(port, '/', BROWSER)
    expect(text).toContain(`<dt>Orders</dt><dd>${stores.orders}</dd>`)
    expect(text).toContain(`<dt>Keys and responses</dt><dd>${stores.responses}</dd>`)
    expect(text).toContain(`<dt>Rate limits</dt><dd>${stores.limits}</dd>`)
  })

  test('says so if the service has no shared secret, and so does the API reference', async () => {
    const env = { CLIENTS_FILE: await writeClientsFile([]) }
    const { port } = await startService({ env })
    for (const [path, words] of [
      ['/', 'accepts only signatures with the keys of clients'],
      ['/docs', 'This service has no shared secret'],
    ] as const) {
      expect((await get(port, path, BROWSER)).text).toContain(words)
      const { port: other } = await startService()
      expect((await get(other, path, BROWSER)).text).not.toContain(words)
    }
  })

  test('has the limits of an order in its form', async () => {
    const { port } = await startService()
    const { text } = await get(port, '/', BROWSER)
    expect(text).toContain('id="item" value="book" maxlength="255"')
    expect(text).toContain('value="500" min="0.0001" max="99999999999.9999" step="0.0001"')
    expect(text).toContain('id="key" maxlength="255"')
  })

  test('has a description for search engines and previews', async () => {
    const { port } = await startService()
    const { text } = await get(port, '/', BROWSER)
    expect(text).toMatch(/<meta name="description" content="An HTTP service that [^"]+">/)
  })

  test('links to the metrics only if they are on this port', async () => {
    const { port } = await startService({ env: { METRICS_PORT: '9464' } })
    expect((await get(port, '/')).json.links).not.toHaveProperty('metrics')
    expect((await get(port, '/', BROWSER)).text).not.toContain('/metrics')
  })

  test('refuses methods other than GET and HEAD with 405', async () => {
    const { port } = await startService()
    const reply = await send(port, { path: '/' })
    expect(reply).toMatchObject({ status: 405, json: { code: 'method-not-allowed' } })
    expect(reply.headers.allow).toBe('GET, HEAD')
  })
})

test('the pages name the published development secret, and no other', async () => {
  const paths = ['/', '/docs']
  const development = await startService()
  for (const path of paths) {
    expect((await get(development.port, path, BROWSER)).text).toContain('super-secret-key')
  }
  const secret = 'a secret of one deployment'
  const other = await startService({ env: { HMAC_SECRET: secret } })
  for (const path of paths) {
    const { text } = await get(other.port, path, BROWSER)
    expect(text).not.toContain(secret)
    expect(text).not.toContain('super-secret-key')
  }
})

test('a template escapes its data', () => {
  const code = '"><script>alert(1)</script>&'
  const html = renderPage('problem', {
    code,
    status: 400,
    title: code,
    explanation: code,
    hasDocs: true,
  })
  expect(html).not.toContain('<script>')
  expect(html).toContain('&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;')
})

describe.each(['/', '/docs', '/docs/'])('the page %s', (path) => {
  test('has a strict Content-Security-Policy', async () => {
    const { port } = await startService()
    const { headers } = await get(port, path, BROWSER)
    expect(String(headers['content-security-policy']).split(';').sort()).toEqual([
      "base-uri 'none'",
      "connect-src 'self'",
      "default-src 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
      "img-src 'self' data:",
      "script-src 'self'",
      "style-src 'self'",
    ])
    expect(headers['x-content-type-options']).toBe('nosniff')
  })

  test('takes its styles and scripts from the service', async () => {
    const { port } = await startService()
    const { text } = await get(port, path, BROWSER)
    const files = [...text.matchAll(/<(?:script|link)[^>]* (?:src|href)="([^"]+)"/g)].map(
      ([, url = '']) => url,
    )
    expect(files).not.toHaveLength(0)
    for (const file of files) {
      const { pathname } = new URL(file, `http://host${path}`)
      expect(pathname).toMatch(/^\/(assets|docs\/static)\//)
      const { status, headers } = await get(port, pathname)
      expect({ pathname, status }).toEqual({ pathname, status: 200 })
      const type = { css: /^text\/css/, js: /javascript/, svg: /^image\/svg/, png: /^image\/png/ }
      expect(headers['content-type']).toMatch(type[pathname.split('.').at(-1) as 'css'])
      expect(headers['x-content-type-options']).toBe('nosniff')
    }
  })

  test('does not exist with DOCS=off', async () => {
    const { port } = await startService({ env: { DOCS: 'off' } })
    expect(await get(port, path, BROWSER)).toMatchObject({
      status: 404,
      headers: { 'content-type': 'application/problem+json; charset=utf-8' },
      json: { code: 'not-found' },
    })
  })
})

describe('the files of the pages', () => {
  test.each(['swagger-ui-bundle.js', 'swagger-ui.css'])(
    '%s of Swagger UI is compressed, and kept for ever under a path with its hash',
    async (name) => {
      const { port } = await startService()
      const { text: page } = await get(port, '/docs', BROWSER)
      const path = page.match(new RegExp(`"(/docs/static/[0-9a-f]{16}/${name})"`))?.[1] as string
      const { headers, text } = await getCompressed(port, path)
      expect(headers).toMatchObject({
        'content-encoding': 'br',
        'cache-control': 'public, max-age=31536000, immutable',
      })
      expect(text.length).toBeLessThan((await get(port, path)).text.length / 2)
    },
  )

  test('/assets/front-page.js is compressed, and revalidated each time', async () => {
    const path = '/assets/front-page.js'
    const { port } = await startService()
    const { headers, text } = await getCompressed(port, path)
    expect(headers).toMatchObject({
      'content-encoding': 'br',
      'cache-control': 'public, max-age=0',
      etag: expect.any(String),
    })
    expect(text.length).toBeLessThan((await get(port, path)).text.length / 2)
    const ifNoneMatch = { 'if-none-match': headers.etag as string }
    const again = await send(port, { method: 'GET', path, headers: ifNoneMatch })
    expect(again).toMatchObject({ status: 304, text: '' })
  })

  test.each(['front-page.html', 'tsconfig.json', '..%2fdocs.ts', 'constructor', ''])(
    '/assets/%s does not exist',
    async (name) => {
      const { port } = await startService()
      expect(await get(port, `/assets/${name}`)).toMatchObject({
        status: 404,
        json: { code: 'not-found' },
      })
    },
  )
})
