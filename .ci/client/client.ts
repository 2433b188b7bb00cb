/** Uses a client that openapi-typescript generated: creates an order, repeats it, reads it, and is refused. */
import { deepEqual, equal, ok } from 'node:assert/strict'
import { createHmac, randomUUID } from 'node:crypto'
import createClient, { type Middleware } from 'openapi-fetch'
import type { components, paths } from './api.js'

const { BASE_URL: baseUrl = '', HMAC_SECRET: secret = '' } = process.env

/** Adds the `X-Signature` of the bytes that are sent, or of the path. */
const signing: Middleware = {
  async onRequest({ request }) {
    const { pathname, search } = new URL(request.url)
    const signed = request.method === 'GET' ? pathname + search : await request.clone().text()
    const signature = createHmac('sha256', secret).update(signed).digest('hex')
    request.headers.set('X-Signature', signature)
    return request
  },
}

const client = createClient<paths>({ baseUrl })
client.use(signing)

const header = { 'Idempotency-Key': randomUUID() }
const body: components['schemas']['NewOrder'] = { user_id: 'user-1', item: '📚', amount: 500 }

const first = await client.POST('/orders', { params: { header }, body })
equal(first.response.status, 201)
ok(first.data)
const { order } = first.data
equal(order.item, body.item)

const replay = await client.POST('/orders', { params: { header }, body })
deepEqual(replay.data, first.data)
equal(replay.response.headers.get('Idempotency-Replayed'), 'true')

const found = await client.GET('/orders/{id}', { params: { path: { id: order.id } } })
deepEqual(found.data, first.data)

const refused = await client.POST('/orders', {
  params: { header: { 'Idempotency-Key': randomUUID() } },
  body: { ...body, amount: 0 },
})
// The compiler narrows the type of the problem by its code.
ok(refused.error?.code === 'invalid-body')
deepEqual(
  refused.error.errors.map(({ field }) => field),
  ['amount'],
)

const readiness = await client.GET('/health/ready')
equal(readiness.data?.status, 'ready')
console.log('The generated client created, repeated and read an order.')
