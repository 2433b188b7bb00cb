import { describe, expect, test } from 'vitest'
import { NO_SCOPE } from '../src/index.ts'
import { nameRecord } from '../src/scope.ts'
import { createApp, isReplayed, memoryStore, post } from './support/app.ts'

/** Sends a request of a tenant. */
const by = (app: Parameters<typeof post>[0], tenant: string, key = 'key') =>
  post(app, { a: 1 }, { 'x-tenant': tenant, 'idempotency-key': key })

describe('the scope of a key', () => {
  test('keeps the same key of two scopes apart, whatever their names are', async () => {
    const { app, runs } = await createApp((request) => String(request.headers['x-tenant']), {
      scope: (request) => String(request.headers['x-tenant']),
    })
    expect((await by(app, 'a', 'b:c')).body).toBe('a')
    expect((await by(app, 'a:b', 'c')).body).toBe('a:b')
    expect((await by(app, 'b', 'b:c')).body).toBe('b')
    expect(isReplayed(await by(app, 'a', 'b:c'))).toBe(true)
    expect(runs()).toBe(3)
  })

  test.each([
    ['undefined', undefined],
    ['null', null],
    ['an empty one', ''],
    ['7', 7],
    ['[object Object]', {}],
  ])(
    'that is %s is a 500, logged with the reason, and the handler does not run',
    async (name, scope) => {
      const { app, runs, warnings } = await createApp(() => 'done', {
        scope: () => scope as unknown as string,
        recover: async () => undefined,
      })
      const response = await post(app)
      expect(response.statusCode).toBe(500)
      expect(response.json().message).toBe(
        'The request cannot be protected by its Idempotency-Key.',
      )
      expect(runs()).toBe(0)
      expect(warnings[0]).toBe('the request cannot be protected by its Idempotency-Key')
      expect(() => nameRecord(scope, 'key')).toThrow(`a non-empty string, not ${name}`)
    },
  )

  test('may be a promise: tenants that it names do not share a response', async () => {
    const { app, runs } = await createApp((request) => String(request.headers['x-tenant']), {
      scope: async (request) => String(request.headers['x-tenant']),
    })
    expect((await by(app, 'a')).body).toBe('a')
    expect((await by(app, 'b')).body).toBe('b')
    expect(isReplayed(await by(app, 'a'))).toBe(true)
    expect(runs()).toBe(2)
  })

  test('that fails is the error of the application', async () => {
    const { app } = await createApp(() => 'done', {
      scope: () => {
        throw Object.assign(new Error('Pay first.'), { statusCode: 402 })
      },
    })
    expect((await post(app)).statusCode).toBe(402)
  })

  test('is part of the key that the handler and recover get', async () => {
    const store = memoryStore()
    const asked: string[] = []
    const { app } = await createApp((request) => `${request.idempotency?.storeKey}`, {
      store,
      scope: () => 'tenant 1',
      recover: async (storeKey) => {
        asked.push(storeKey)
        return undefined
      },
    })
    expect((await post(app)).body).toBe('tenant%201,key')
    await store.claim('tenant%201,other', 'v1:other', 'of another run')
    await post(app, { a: 1 }, { 'idempotency-key': 'other' })
    expect(asked).toEqual(['tenant%201,other'])
  })

  test('may be none on purpose: then the record has the name of the key', async () => {
    const { app } = await createApp((request) => `${request.idempotency?.storeKey}`, {
      scope: () => NO_SCOPE,
    })
    expect((await post(app)).body).toBe('key')
  })

  test('above 255 characters counts by its hash', () => {
    const names = ['a', 'b'].map((last) => nameRecord('x'.repeat(255) + last, 'key'))
    for (const name of names) expect(name).toMatch(/^sha256:[0-9a-f]{64},key$/)
    expect(new Set(names).size).toBe(2)
    expect(nameRecord('x'.repeat(255), 'key')).toBe(`${'x'.repeat(255)},key`)
  })

  test('that looks like a hash is another one', () => {
    const long = 'x'.repeat(256)
    const hashed = nameRecord(long, 'key').replace(/,key$/, '')
    expect(nameRecord(hashed, 'key')).not.toBe(nameRecord(long, 'key'))
  })

  test('may contain half of a surrogate pair, which is not another half', () => {
    expect(nameRecord('\ud800', 'key')).not.toBe(nameRecord('\ud801', 'key'))
  })

  test('is as long as the key of a row in Postgres may be', () => {
    const longest = nameRecord('\u4f60'.repeat(255), 'k'.repeat(255))
    expect(longest.length).toBeLessThan(2_700) // an entry of a B-tree: 2704 bytes
  })
})
