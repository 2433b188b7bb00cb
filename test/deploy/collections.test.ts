import { createHmac } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { runInNewContext } from 'node:vm'
import { beforeAll, describe, expect, test } from 'vitest'
import { sign } from '../../src/client/sign.ts'
import { SECRET } from '../support/client.ts'

// Postman and Bruno are not here: their scripts run on stand-ins for what they are given by those.

const FOLDER = new URL('../../docs/collection/', import.meta.url)

/** A request as it would be sent. */
interface Sent {
  headers: Record<string, string>
  body: string
}

const signatureOf = ({ body }: Sent) => sign(new Uint8Array(Buffer.from(body)), SECRET)

/** A body with a variable that has another value each time, and with more than ASCII in it. */
const BODY = '{"user_id":"{{$guid}}","item":"ein Stück 🍰","amount":{{amount}}}'

/** Fills in variables, the dynamic ones anew each time. */
function fillIn(text: string, variables: Record<string, string>): string {
  return text.replace(/\{\{(\$?\w+)\}\}/g, (whole, name) =>
    name === '$guid' ? crypto.randomUUID() : (variables[name] ?? whole),
  )
}

const requireCrypto = (name: string) => {
  expect(name).toBe('crypto-js')
  const HmacSHA256 = (text: string, key: string) => ({
    toString: () => createHmac('sha256', key).update(text).digest('hex'),
  })
  return { HmacSHA256 }
}

describe('the Postman collection', () => {
  interface Item {
    name: string
    event: { listen: string; script: { exec: string[] } }[]
    request: {
      method: string
      url: { raw: string; host: string[]; path: string[] }
      header: { key: string; value: string }[]
      body?: { mode: string; raw: string }
    }
  }
  let collection: {
    info: { schema: string }
    variable: { key: string; value: string }[]
    event: Item['event']
    item: Item[]
  }

  beforeAll(async () => {
    const file = new URL('order-once.postman_collection.json', FOLDER)
    collection = JSON.parse(await readFile(file, 'utf8'))
  })

  const script = ({ event }: { event: Item['event'] }, listen: string) =>
    event.find((each) => each.listen === listen)?.script.exec.join('\n') ?? ''
  const named = (name: string) => collection.item.find((item) => item.name === name) as Item

  /** Runs the scripts before a request, as Postman does: first the collection's, then its own. */
  function prepare({ request, ...item }: Item, body = request.body?.raw) {
    const variables: Record<string, string> = { amount: '0.5' }
    for (const { key, value } of collection.variable) variables[key] = value
    const headers = Object.fromEntries(request.header.map(({ key, value }) => [key, value]))
    const sent = { headers, body: body ?? '' }
    const pm = {
      variables: { replaceIn: (text: string) => fillIn(text, variables) },
      collectionVariables: {
        set: (name: string, value: string) => {
          variables[name] = value
        },
      },
      request: {
        body: body && {
          raw: body,
          update: (update: { mode: string; raw: string }) => {
            expect(update.mode).toBe('raw')
            sent.body = update.raw
          },
        },
        headers: {
          upsert: ({ key, value }: { key: string; value: string }) => {
            headers[key] = value
          },
          remove: (key: string) => delete headers[key],
        },
      },
    }
    // CryptoJS is there as a global, too: a script that declares it would not run.
    for (const source of [script(collection, 'prerequest'), script(item, 'prerequest')]) {
      runInNewContext(`const CryptoJS = {};${source}`, { pm, require: requireCrypto })
    }
    sent.body = fillIn(sent.body, variables)
    for (const name in headers) headers[name] = fillIn(headers[name] as string, variables)
    return sent
  }

  test('is one of version 2.1, each of its requests complete and each with a test', () => {
    expect(collection.info.schema).toMatch(/\/collection\/v2\.1\.0\/collection\.json$/)
    expect(collection.item.map(({ request }) => `${request.method} ${request.url.raw}`)).toEqual([
      'POST {{baseUrl}}/orders',
      'POST {{baseUrl}}/orders',
      'POST {{baseUrl}}/orders',
      'POST {{baseUrl}}/orders',
      'GET {{baseUrl}}/health/live',
      'GET {{baseUrl}}/health/ready',
      'GET {{metricsUrl}}/metrics',
    ])
    for (const item of collection.item) {
      const { raw, host, path } = item.request.url
      expect([...host, ...path].join('/')).toBe(raw)
      expect(script(item, 'test')).toContain('pm.test(')
    }
  })

  test('signs the very bytes that are sent', () => {
    const sent = prepare(named('A new order'), BODY)
    expect(sent.headers['X-Signature']).toBe(signatureOf(sent))
    expect(JSON.parse(sent.body)).toMatchObject({ item: 'ein Stück 🍰', amount: 0.5 })
  })

  test('sends a new order under a key of its own', () => {
    const [first, second] = [prepare(named('A new order')), prepare(named('A new order'))]
    expect(first.headers['Idempotency-Key']).toMatch(/^[0-9a-f-]{36}$/)
    expect(first.headers['Idempotency-Key']).not.toBe(second.headers['Idempotency-Key'])
  })

  test('repeats with the same body, then with another, then without a signature', () => {
    const bodyOf = (name: string) => named(name).request.body?.raw
    expect(bodyOf('The same again')).toBe(bodyOf('A new order'))
    expect(bodyOf('Another body under the same key')).not.toBe(bodyOf('A new order'))
    for (const name of ['The same again', 'Another body under the same key']) {
      const sent = prepare(named(name))
      expect(sent.headers['X-Signature']).toBe(signatureOf(sent))
    }
    expect(prepare(named('Without a signature')).headers).not.toHaveProperty('X-Signature')
  })

  test('leaves what has no body unsigned', () => {
    for (const name of ['Health: live', 'Health: ready', 'Metrics']) {
      expect(prepare(named(name)).headers).toEqual({})
    }
  })
})

describe('the Bruno collection', () => {
  let files: Record<string, string>

  beforeAll(async () => {
    const folder = new URL('bruno/', FOLDER)
    const names = await readdir(folder)
    const texts = await Promise.all(names.map((name) => readFile(new URL(name, folder), 'utf8')))
    files = Object.fromEntries(names.map((name, i) => [name, texts[i] as string]))
  })

  /** A block of a .bru file, without the indentation by two that it has there. */
  const block = (file: string, name: string) => {
    const [, text = ''] = new RegExp(`^${name} \\{\\n(.*?)^\\}`, 'ms').exec(files[file] ?? '') ?? []
    return text.replace(/^ {2}/gm, '').trim()
  }

  function prepare(file: string, body = block(file, 'body:json')) {
    const variables: Record<string, string> = { amount: '0.5', secret: SECRET }
    const headers: Record<string, string> = {}
    const sent = { headers, body }
    const raw = { raw: true }
    const req = {
      getMethod: () => /^(get|post) \{/m.exec(files[file] as string)?.[1]?.toUpperCase(),
      getBody: (options: object) => {
        expect(options).toEqual(raw) // else it is parsed
        return sent.body
      },
      setBody: (text: string, options: object) => {
        expect(options).toEqual(raw) // else it is formatted anew
        sent.body = text
      },
      setHeader: (name: string, value: string) => {
        headers[name] = value
      },
      deleteHeader: (name: string) => delete headers[name],
    }
    const bru = {
      interpolate: (text: string) => fillIn(text, variables),
      setVar: (name: string, value: string) => {
        variables[name] = value
      },
    }
    for (const name of ['collection.bru', file]) {
      runInNewContext(block(name, 'script:pre-request'), { req, bru, require: requireCrypto })
    }
    sent.body = fillIn(sent.body, variables)
    return sent
  }

  test('has the requests of the other one', async () => {
    const file = new URL('order-once.postman_collection.json', FOLDER)
    const { item } = JSON.parse(await readFile(file, 'utf8'))
    const requests = Object.keys(files)
      .filter((name) => name.endsWith('.bru') && name !== 'collection.bru')
      .map((name) => ({
        seq: Number(/^ {2}seq: (\d+)$/m.exec(files[name] as string)?.[1]),
        name: /^ {2}name: (.*)$/m.exec(files[name] as string)?.[1],
        url: /^ {2}url: (.*)$/m.exec(files[name] as string)?.[1],
        body: block(name, 'body:json'),
      }))
      .sort((a, b) => a.seq - b.seq)
      .map(({ name, url, body }) => ({ name, url, body }))
    expect(requests).toEqual(
      item.map(
        ({
          name,
          request,
        }: {
          name: string
          request: { url: { raw: string }; body?: { raw: string } }
        }) => ({
          name,
          url: request.url.raw,
          body: request.body?.raw ?? '',
        }),
      ),
    )
  })

  test('signs the very bytes that are sent', () => {
    const sent = prepare('new-order.bru', BODY)
    expect(sent.headers['X-Signature']).toBe(signatureOf(sent))
    expect(JSON.parse(sent.body)).toMatchObject({ item: 'ein Stück 🍰', amount: 0.5 })
  })

  test('leaves unsigned what is to be, and what has no body', () => {
    for (const file of [
      'without-signature.bru',
      'health-live.bru',
      'health-ready.bru',
      'metrics.bru',
    ]) {
      expect(prepare(file).headers).toEqual({})
    }
  })
})
