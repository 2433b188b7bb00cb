import { describe, expect, test } from 'vitest'
import { PROBLEM_CODES, PROBLEMS } from '../../src/http/problems.ts'
import { get } from '../support/client.ts'
import { startService } from '../support/service.ts'

describe('GET /problems/<code>', () => {
  test.each(PROBLEM_CODES)('explains %s as JSON and as a page', async (code) => {
    const { port } = await startService()
    const { status, title, explanation } = PROBLEMS[code]
    const json = await get(port, `/problems/${code}`, 'application/json')
    expect(json).toMatchObject({
      status: 200,
      json: { type: `/problems/${code}`, code, status, title, explanation },
    })
    const html = await get(port, `/problems/${code}`, 'text/html,application/xhtml+xml,*/*;q=0.8')
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
      "default-src 'none';style-src 'self';base-uri 'none';form-action 'none';frame-ancestors 'none'",
    )
    expect(headers['x-content-type-options']).toBe('nosniff')
  })

  test('needs no signature and is not limited', async () => {
    const { port } = await startService({ env: { RATE_LIMIT_MAX: '1' } })
    for (let i = 0; i < 3; i++) expect((await get(port, '/problems/overloaded')).status).toBe(200)
  })
})
