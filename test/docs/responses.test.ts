/** Each response of the service, against what the OpenAPI document says of it. */
import { Ajv2020 } from 'ajv/dist/2020.js'
import { describe, expect, test } from 'vitest'
import { get, newKey, ORDER, type Reply, type Send, send } from '../support/client.ts'
import { createTestStores, startInstance, startService } from '../support/service.ts'
import { startProxy } from '../support/start-proxy.ts'
import { until } from '../support/until.ts'

/** Headers that any response may have. */
const GENERAL_HEADERS =
  /^(connection|content-.*|cross-origin-.*|date|keep-alive|origin-agent-cluster|referrer-policy|transfer-encoding|vary|x-request-id|x-(content-type|dns|download|frame|permitted|xss)-.*|cache-control)$/

/** Fetches the document and returns a function that expects a response to be as it says. */
async function readDocument(port: number) {
  const document = (await get(port, '/openapi.json')).json
  const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true })
  ajv.addSchema(document, 'openapi')

  return (path: string, method: 'get' | 'post', { status, headers, json, text }: Reply) => {
    const [mediaType = ''] = `${headers['content-type']}`.split(';')
    const response = document.paths[path][method].responses[status]
    expect(response?.content, `${path} ${status}`).toHaveProperty([mediaType])

    const pointer = ['paths', path, method, 'responses', status, 'content', mediaType, 'schema']
      .map((part) => encodeURIComponent(`${part}`.replaceAll('~', '~0').replaceAll('/', '~1')))
      .join('/')
    const isValid = ajv.validate({ $ref: `openapi#/${pointer}` }, json ?? text)
    expect(isValid, `${text} ${ajv.errorsText()}`).toBe(true)

    const described = Object.keys(response.headers ?? {}).map((name) => name.toLowerCase())
    const own = Object.keys(headers).filter((name) => !GENERAL_HEADERS.test(name))
    expect(described).toEqual(expect.arrayContaining(own))
  }
}

describe('a response is as the OpenAPI document describes it', () => {
  test('to orders that are created, repeated, refused and read', async () => {
    const { port } = await startService()
    const expectDescribed = await readDocument(port)
    const key = newKey()
    const refusals: [number, Send][] = [
      [400, { key: null }],
      [400, { key: 'a b' }],
      [400, { body: '{' }],
      [400, { body: { ...ORDER, amount: 0, colour: 'red' } }],
      [401, { signature: null }],
      [401, { signature: 'wrong' }],
      [409, { key, body: { ...ORDER, amount: 1 } }],
      [413, { body: ' '.repeat(70_000) }],
      [415, { headers: { 'content-type': 'text/plain' } }],
    ]
    const created = await send(port, { key })
    expect(created.status).toBe(201)
    expectDescribed('/orders', 'post', created)
    expectDescribed('/orders', 'post', await send(port, { key, headers: { prefer: 'wait=1' } }))
    for (const [status, refused] of refusals) {
      const reply = await send(port, refused)
      expect(reply.status).toBe(status)
      expectDescribed('/orders', 'post', reply)
    }

    const read = (path: string) => send(port, { method: 'GET', path })
    const { id } = created.json.order
    expectDescribed('/orders/{id}', 'get', await read(`/orders/${id}`))
    expectDescribed('/orders/{id}', 'get', await read('/orders/none'))
    expectDescribed('/orders', 'get', await read(`/orders?idempotency_key=${key}`))
    expectDescribed('/orders', 'get', await read('/orders?idempotency_key=none'))
    expectDescribed('/orders', 'get', await read('/orders'))
  })

  test('to an order above the rate limit', async () => {
    const { port } = await startService({ env: { RATE_LIMIT_MAX: '1' } })
    const expectDescribed = await readDocument(port)
    await send(port)
    const limited = await send(port)
    expect(limited.status).toBe(429)
    expectDescribed('/orders', 'post', limited)
  })

  test('to what needs no signature', async () => {
    const { port } = await startService()
    const expectDescribed = await readDocument(port)
    expectDescribed('/health/live', 'get', await get(port, '/health/live'))
    expectDescribed('/health/ready', 'get', await get(port, '/health/ready'))
    expectDescribed('/metrics', 'get', await get(port, '/metrics'))
    for (const accept of ['application/json', 'text/html']) {
      const reply = await get(port, '/problems/invalid-body', accept)
      expectDescribed('/problems/{code}', 'get', reply)
    }
    expectDescribed('/problems/{code}', 'get', await get(port, '/problems/none'))
  })

  test('to an order and to a health check while Postgres is gone', async () => {
    const { database } = await createTestStores({ redis: false })
    const { proxy, url } = await startProxy(database.url)
    const { port } = await startInstance({ database: { url } })
    const expectDescribed = await readDocument(port)
    proxy.silence()
    proxy.resetAll()
    const readiness = await until(async () => {
      const reply = await get(port, '/health/ready')
      return reply.status === 503 && reply
    })
    expectDescribed('/health/ready', 'get', readiness)
    const refused = await send(port)
    expect(refused.status).toBe(503)
    expectDescribed('/orders', 'post', refused)
  })
})
