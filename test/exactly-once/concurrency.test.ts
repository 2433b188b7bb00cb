import { describe, expect, test } from 'vitest'
import { newKey, ORDER, type Reply, send, sendAll } from '../support/client.ts'
import { createTestStores, startInstance } from '../support/service.ts'
import { hasRedis } from '../support/stores.ts'

const created = (replies: Reply[]) => replies.filter(({ status }) => status === 201)
const refused = (replies: Reply[]) => replies.filter(({ status }) => status !== 201)
const distinct = <T>(values: T[]) => [...new Set(values)]

const places = [
  { name: 'one instance with records in memory', redis: false, instances: 1 },
  { name: 'two instances that share only Postgres', redis: false, instances: 2 },
  ...(hasRedis
    ? [
        { name: 'one instance on Redis', redis: true, instances: 1 },
        { name: 'two instances on Redis', redis: true, instances: 2 },
      ]
    : []),
]

describe.each(places)('requests at the same time, on $name', ({ redis, instances }) => {
  async function start() {
    const stores = await createTestStores({ redis })
    const ports: number[] = []
    for (let i = 0; i < instances; i++) ports.push((await startInstance(stores)).port)
    return {
      choosePort: (index: number) => ports[index % ports.length] as number,
      rows: () => stores.database.sql`select id, item from orders`,
    }
  }

  test('50 identical requests create one order; every 201 has the same bytes, the others are 409', async () => {
    const { choosePort, rows } = await start()
    const key = newKey()
    const replies = await sendAll(50, (i) => send(choosePort(i), { key }))

    const stored = await rows()
    expect(stored).toHaveLength(1)
    expect(distinct(created(replies).map(({ text }) => text))).toHaveLength(1)
    expect(created(replies)[0]?.json.order.id).toBe(stored[0]?.id)
    const first = replies.filter(
      ({ status, headers }) => status === 201 && headers['idempotency-replayed'] === undefined,
    )
    expect(first).toHaveLength(1)
    for (const reply of refused(replies)) {
      expect(reply).toMatchObject({ status: 409, json: { code: 'request-in-progress' } })
      expect(reply.headers['retry-after']).toBe('1')
    }

    for (const repeat of await sendAll(10, (i) => send(choosePort(i), { key }))) {
      expect(repeat).toMatchObject({ status: 201, text: first[0]?.text })
      expect(repeat.headers['idempotency-replayed']).toBe('true')
    }
    expect(await rows()).toHaveLength(1)
  })

  test('50 requests with one key and two bodies create one order; the other body is refused with 409', async () => {
    const { choosePort, rows } = await start()
    const key = newKey()
    const bodies = [ORDER, { ...ORDER, item: 'pen' }]
    const replies = await sendAll(50, (i) => send(choosePort(i >> 1), { key, body: bodies[i % 2] }))

    const stored = await rows()
    expect(stored).toHaveLength(1)
    const winner = bodies.findIndex(({ item }) => item === stored[0]?.item)
    expect(distinct(created(replies).map(({ text }) => text))).toHaveLength(1)
    replies.forEach((reply, index) => {
      if (index % 2 !== winner) expect(reply.json.code).toMatch(/^idempotency-key-reused$/)
      else if (reply.status !== 201) expect(reply.json.code).toBe('request-in-progress')
    })

    const replay = await send(choosePort(1), { key, body: bodies[winner] })
    expect(replay).toMatchObject({ status: 201, text: created(replies)[0]?.text })
    expect((await send(choosePort(0), { key, body: bodies[1 - winner] })).json.code).toBe(
      'idempotency-key-reused',
    )
  })

  test('50 requests with 50 keys create 50 orders', async () => {
    const { choosePort, rows } = await start()
    const replies = await sendAll(50, (i) => send(choosePort(i)))
    expect(created(replies)).toHaveLength(50)
    expect(distinct(replies.map(({ json }) => json.order.id))).toHaveLength(50)
    expect(await rows()).toHaveLength(50)
  })
})
