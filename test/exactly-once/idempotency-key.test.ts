import { describe, expect, test } from 'vitest'
import { newKey, send } from '../support/client.ts'
import { createClaimCounter } from '../support/count-claims.ts'
import { startService } from '../support/service.ts'

describe('the Idempotency-Key header', () => {
  test('is required', async () => {
    const { port } = await startService()
    const reply = await send(port, { key: null })
    expect(reply).toMatchObject({ status: 400, json: { code: 'idempotency-key-missing' } })
    expect(reply.json.detail).toContain('Idempotency-Key')
  })

  test.each([
    ['empty', ''],
    ['an empty string', '""'],
    ['256 bytes', 'k'.repeat(256)],
    ['256 bytes in quotes', `"${'k'.repeat(256)}"`],
    ['a blank inside', 'key 001'],
    ['a comma', 'key,001'],
    ['a quote inside', 'key"001'],
    ['one quote', '"'],
    ['a quote before', '"key-001'],
    ['a quote behind', 'key-001"'],
    ['a backslash', 'key\\001'],
    ['parameters', '"key-001";a=1'],
    ['a letter beyond ASCII', 'clé'],
    ['sent twice', ['key-001', 'key-001']],
    ['sent twice, differing', ['key-001', 'key-002']],
  ])('that is malformed (%s) is refused, and claims no key', async (_name, key) => {
    const { claims, wrapIdempotencyStore } = createClaimCounter()
    const { port, countOrders } = await startService({ wrapIdempotencyStore })
    const reply = await send(port, { key })
    expect(reply).toMatchObject({ status: 400, json: { code: 'idempotency-key-invalid' } })
    expect(reply.json.detail).toContain('Idempotency-Key')
    expect(claims()).toBe(0)
    expect(await countOrders()).toBe(0)
  })

  test.each([
    ['1 byte', 'k'],
    ['255 bytes', 'k'.repeat(255)],
    ['every allowed character', "!#$%&'()*+-./0:;<=>?@AZ[]^_`az{|}~"],
  ])('of %s is accepted', async (_name, key) => {
    const { port } = await startService()
    const reply = await send(port, { key })
    expect(reply.status).toBe(201)
    expect(reply.json.order.idempotency_key).toBe(key)
  })

  test('is the same key with quotes and without', async () => {
    const { port, countOrders } = await startService()
    const key = newKey()
    const bare = await send(port, { key })
    const quoted = await send(port, { key: `"${key}"` })
    expect(quoted.text).toBe(bare.text)
    expect(quoted.headers['idempotency-replayed']).toBe('true')
    expect(quoted.json.order.idempotency_key).toBe(key)
    expect(await countOrders()).toBe(1)
  })

  test('is case-sensitive', async () => {
    const { port, countOrders } = await startService()
    const key = newKey()
    await send(port, { key })
    expect(
      (await send(port, { key: key.toUpperCase() })).headers['idempotency-replayed'],
    ).toBeUndefined()
    expect(await countOrders()).toBe(2)
  })
})
