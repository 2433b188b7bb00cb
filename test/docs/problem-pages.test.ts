import { describe, expect, test } from 'vitest'
import { PROBLEM_CODES, PROBLEMS } from '../../src/http/problems.ts'
import { get } from '../support/client.ts'
import { startService } from '../support/service.ts'

const BROWSER = 'text/html,application/xhtml+xml,*/*;q=0.8'

const findLinks = (html: string) =>
  [...html.matchAll(/ href="([^"]+)"/g)].map(([, url]) => url as string)

async function expectAllFound(port: number, page: string, links: string[]) {
  for (const link of links) {
    const { pathname } = new URL(link, `http://host${page}`)
    const { status } = await get(port, pathname)
    expect({ pathname, status }).toEqual({ pathname, status: 200 })
  }
}

describe('GET /problems/<code>', () => {
  test.each(PROBLEM_CODES)('explains %s as JSON and as a page', async (code) => {
    const { port } = await startService()
    const { status, title, explanation } = PROBLEMS[code]
    const json = await get(port, `/problems/${code}`, 'application/json')
    expect(json).toMatchObject({
      status: 200,
      json: { type: `/problems/${code}`, code, status, title, explanation },
    })
    const html = await get(port, `/problems/${code}`, BROWSER)
    expect(html.headers['content-type']).toBe('text/html; charset=utf-8')
    expect(html.text).toContain(title)
    expect(html.text).toContain(explanation)
  })

  test('is JSON unless the client prefers HTML, and 404 for an unknown code', async () => {
    const { port } = await startService()
    expect((await get(port, '/problems/overloaded')).json.code).toBe('overloaded')
    expect((await get(port, '/problems/overloaded', '*/*')).json.code).toBe('overloaded')
    expect(await get(port, '/problems/constructor')).toMatchObject({
      status: 404,
      json: { code: 'not-found' },
    })
  })

  test('allows its page no script, no frame and no other host', async () => {
    const { port } = await startService()
    const { headers } = await get(port, '/problems/overloaded', 'text/html')
    expect(headers['content-security-policy']).toBe(
      "default-src 'none';style-src 'self';img-src 'self';base-uri 'none';form-action 'none';frame-ancestors 'none'",
    )
    expect(headers['x-content-type-options']).toBe('nosniff')
  })

  test('needs no signature and is not limited', async () => {
    const { port } = await startService({ env: { RATE_LIMIT_MAX: '1' } })
    for (let i = 0; i < 3; i++) expect((await get(port, '/problems/overloaded')).status).toBe(200)
  })
})

describe('GET /problems', () => {
  test('lists all problems, as JSON and as a page with links to each', async () => {
    const { port } = await startService()
    const { status, json } = await get(port, '/problems')
    expect(status).toBe(200)
    expect(json.problems.map(({ code }: { code: string }) => code)).toEqual(PROBLEM_CODES)
    const { text } = await get(port, '/problems', BROWSER)
    for (const code of PROBLEM_CODES) expect(text).toContain(`href="problems/${code}"`)
  })

  test('is also found with a slash at its end', async () => {
    const { port } = await startService()
    const { status, headers } = await get(port, '/problems/', BROWSER)
    expect(status).toBe(302)
    expect(headers.location).toBe('../problems')
  })
})

describe.each(['/problems', '/problems/overloaded'])('the page %s', (path) => {
  test('has one main, and relative links to pages and files that exist', async () => {
    const { port } = await startService()
    const { text } = await get(port, path, BROWSER)
    expect(text.match(/<main>/g)).toHaveLength(1)
    const links = findLinks(text)
    expect(links).toEqual(expect.arrayContaining([expect.stringMatching(/icon\.svg$/)]))
    expect(links.some((link) => link.endsWith('docs'))).toBe(true)
    expect(links.filter((link) => link.startsWith('/'))).toEqual([])
    await expectAllFound(port, path, links)
  })

  test('links to no page that DOCS=off removes', async () => {
    const { port } = await startService({ env: { DOCS: 'off' } })
    const { text } = await get(port, path, BROWSER)
    await expectAllFound(port, path, findLinks(text))
  })
})

test('browsers find an icon for JSON, too', async () => {
  const { port } = await startService()
  const { headers } = await get(port, '/favicon.ico')
  const icon = await get(port, String(headers.location))
  expect(icon.headers['content-type']).toBe('image/svg+xml')
})
