/** The OpenAPI document, against its specification and against the service. */
import { Validator } from '@seriousme/openapi-schema-validator'
import { describe, expect, test } from 'vitest'
import { PROBLEMS, type ProblemCode } from '../../src/http/problems.ts'
import { get, send } from '../support/client.ts'
import { startService } from '../support/service.ts'

/** The statuses of the contract. */
const STATUSES = [201, 400, 401, 404, 405, 408, 409, 413, 415, 421, 429, 431, 500, 503]

async function createOrder(env: Record<string, string> = {}) {
  const { port } = await startService({ env })
  return (await get(port, '/openapi.json')).json.paths['/orders'].post
}

describe('the OpenAPI document', () => {
  test.each(['409', '422'])('is valid, with %s for a key of another body', async (status) => {
    const { port } = await startService({ env: { IDEMPOTENCY_MISMATCH_STATUS: status } })
    const reply = await get(port, '/openapi.json')
    expect(reply.headers['content-type']).toBe('application/json; charset=utf-8')
    expect(await new Validator().validate(reply.json)).toEqual({ valid: true })
    expect(reply.json.openapi).toMatch(/^3\.1\./)
  })

  test('has every status of the contract, and no other, with an example', async () => {
    const { responses } = await createOrder()
    expect(Object.keys(responses).map(Number)).toEqual(STATUSES)
    for (const status of STATUSES) {
      const [content] = Object.values(responses[status].content) as [{ examples: object }]
      expect(content.examples).not.toEqual({})
    }
  })

  test('has an example of each problem that an order can cause', async () => {
    const { responses } = await createOrder()
    const { 'order-not-found': _, ...caused } = PROBLEMS
    for (const [code, { status, title }] of Object.entries(caused)) {
      const { examples } = responses[status].content['application/problem+json']
      expect(examples[code].value).toMatchObject({ type: `/problems/${code}`, code, status, title })
      expect(examples[code].value.detail).not.toBe('')
      expect(examples[code].description).toBe(PROBLEMS[code as ProblemCode].explanation)
    }
    const { errors } =
      responses[400].content['application/problem+json'].examples['invalid-body'].value
    expect(errors).not.toHaveLength(0)
  })

  test('has 422 only if the service sends it', async () => {
    const { responses } = await createOrder({ IDEMPOTENCY_MISMATCH_STATUS: '422' })
    const listCodes = (status: number) =>
      Object.keys(responses[status].content['application/problem+json'].examples)
    expect(listCodes(422)).toEqual(['idempotency-key-reused'])
    expect(listCodes(409)).toEqual(['request-in-progress'])
  })

  test('describes the headers and the signature, which the service checks in its own order', async () => {
    const { parameters, security } = await createOrder()
    expect(parameters).toContainEqual(
      expect.objectContaining({ in: 'header', name: 'Idempotency-Key', required: true }),
    )
    expect(security).toEqual([{ signature: [] }, { messageSignature: [] }])
    const { port } = await startService()
    expect((await send(port, { key: null, body: '{', signature: null })).json.code).toBe(
      'signature-missing',
    )
    expect((await send(port, { key: null, body: '{' })).json).toMatchObject({
      code: 'invalid-body',
      errors: [{ field: 'body', message: 'must be JSON' }],
    })
    expect((await send(port, { key: null })).json.code).toBe('idempotency-key-missing')
  })

  test('has a pattern that accepts exactly the valid keys', async () => {
    const { parameters } = await createOrder()
    const { schema } = parameters.find(({ name }: { name: string }) => name === 'Idempotency-Key')
    const pattern = new RegExp(schema.pattern, 'u')
    for (const key of ['a', '!', '~', '[key]', '"key-001"', 'k'.repeat(255)]) {
      expect(key).toMatch(pattern)
    }
    for (const key of ['', '""', 'a b', 'a,b', 'a\\b', 'a"b', '"a', 'ä', 'k'.repeat(256)]) {
      expect(key).not.toMatch(pattern)
    }
  })

  test('has an example of an order that the service accepts, and of its response', async () => {
    const { requestBody, responses } = await createOrder()
    const { port } = await startService()
    const { status, json } = await send(port, {
      body: requestBody.content['application/json'].example,
    })
    expect(status).toBe(201)
    const { order } = responses[201].content['application/json'].examples.order.value
    expect(Object.keys(order)).toEqual(Object.keys(json.order))
    const document = (await get(port, '/openapi.json')).json
    expect(document.components.schemas.Order.required).toEqual(Object.keys(json.order))
  })

  test('names its schemas', async () => {
    const { port } = await startService()
    const { components, paths } = (await get(port, '/openapi.json')).json
    expect(Object.keys(components.schemas).sort()).toEqual([
      ...['Explanation', 'InvalidBody', 'Liveness', 'NewOrder', 'Order', 'OrderCreated'],
      ...['Problem', 'Readiness'],
    ])
    expect(paths['/orders'].post.requestBody.content['application/json'].schema).toEqual({
      $ref: '#/components/schemas/NewOrder',
    })
  })

  test('has only patterns that mean the same in RE2 and in ECMAScript', async () => {
    const { port } = await startService()
    const patterns: string[] = []
    JSON.parse((await get(port, '/openapi.json')).text, (name, value) => {
      if (name === 'pattern') patterns.push(value)
      return value
    })
    expect(patterns).not.toEqual([])
    for (const pattern of patterns) {
      // No look-around, no back-reference, no \u, and no escape whose meaning differs.
      expect(pattern).not.toMatch(/\(\?|\\[1-9]|\\[upPckbB]/)
      expect(() => new RegExp(pattern)).not.toThrow()
    }
  })

  test('says of each operation whether it must be signed', async () => {
    const { port } = await startService()
    const { paths } = (await get(port, '/openapi.json')).json
    const listSecurity = (path: string) => paths[path].get.security
    expect(listSecurity('/orders/{id}')).toEqual([{ signature: [] }, { messageSignature: [] }])
    for (const path of ['/problems/{code}', '/health/live', '/health/ready', '/metrics']) {
      expect(listSecurity(path)).toEqual([])
    }
  })

  test('has the PUBLIC_URL as server, or the address that it came from', async () => {
    const readServer = async (env: Record<string, string>) => {
      const { port } = await startService({ env })
      return (await get(port, '/openapi.json')).json.servers[0].url
    }
    expect(await readServer({})).toBe('/')
    const publicUrl = 'https://orders.example.com'
    expect(await readServer({ PUBLIC_URL: publicUrl })).toBe(publicUrl)
  })

  test('has an example of each header', async () => {
    const { parameters, responses } = await createOrder()
    for (const { name, example } of parameters) expect([name, example]).not.toContain(undefined)
    for (const { headers } of Object.values<{
      headers: Record<string, { schema: { examples?: unknown[] } }>
    }>(responses)) {
      for (const [name, header] of Object.entries(headers)) {
        expect([name, header.schema.examples?.[0]]).not.toContain(undefined)
      }
    }
  })

  test('has no example of a header that a first response does not have', async () => {
    const { responses } = await createOrder()
    const { headers } = responses[201]
    for (const name of ['Idempotency-Replayed', 'Preference-Applied']) {
      expect(headers[name].schema.examples).toEqual([''])
    }
  })

  test('has the routes of the contract and none of the pages', async () => {
    const { port } = await startService()
    const { paths } = (await get(port, '/openapi.json')).json
    expect(Object.keys(paths)).toEqual(expect.arrayContaining(['/orders', '/problems/{code}']))
    expect(Object.keys(paths)).not.toContain('/docs')
    expect(Object.keys(paths['/orders'])).toEqual(['post', 'get'])
    expect(Object.keys(paths['/orders/{id}'])).toEqual(['get'])
  })

  test('does not exist with DOCS=off', async () => {
    const { port } = await startService({ env: { DOCS: 'off' } })
    expect(await get(port, '/openapi.json')).toMatchObject({
      status: 404,
      json: { code: 'not-found' },
    })
  })
})
