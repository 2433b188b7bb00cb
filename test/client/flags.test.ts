import { ok } from 'node:assert/strict'
import { describe, expect, test } from 'vitest'
import { readFlags, UsageError } from '../../src/client/flags.ts'

const ITEM = ['--item', 'book', '--amount', '500']

describe('the flags', () => {
  test('have defaults, and each command has a new key', async () => {
    const [first, second] = [await readFlags(ITEM, {}), await readFlags(ITEM, {})]
    ok(first !== 'help' && second !== 'help')
    expect(first).toMatchObject({
      maxAttempts: 10,
      maxTimeMs: 60_000,
      timeoutMs: 10_000,
      repeat: undefined,
      json: false,
    })
    expect(first.order.createRequest().url).toBe('http://127.0.0.1:8080/orders')
    expect(second.key).not.toBe(first.key)
  })

  test('take durations in seconds', async () => {
    expect(await readFlags([...ITEM, '--max-time', '0.5', '--timeout', '2'], {})).toMatchObject({
      maxTimeMs: 500,
      timeoutMs: 2000,
    })
  })

  test('repeat with 10 requests in flight by default', async () => {
    expect(await readFlags([...ITEM, '--repeat', '20'], {})).toHaveProperty('repeat', {
      times: 20,
      concurrency: 10,
    })
  })

  test.each<[string, string[]]>([
    ["Unknown option '--colour'", ['--colour']],
    ['Unexpected argument', [...ITEM, 'pen']],
    ['--amount', ['--item', 'book', '--amount', '-1']],
    ['--amount must be a number, not ""', ['--item', 'book', '--amount', '']],
    ['--item cannot be combined with --file', ['--file', 'order.json', '--item', 'book']],
    ['--file cannot be read', ['--file', '/nowhere/order.json']],
    ['--attempts cannot be combined with --repeat', [...ITEM, '--repeat', '2', '--attempts', '2']],
    ['--max-time cannot be combined with --repeat', [...ITEM, '--repeat', '2', '--max-time', '2']],
    ['--concurrency needs --repeat', [...ITEM, '--concurrency', '2']],
    ['--repeat must be a whole number from 1 to', [...ITEM, '--repeat', '0']],
    ['--attempts must be a whole number from 1 to', [...ITEM, '--attempts', '1.5']],
    ['--timeout must be a number greater than 0', [...ITEM, '--timeout', 'soon']],
    ['--key must be visible ASCII characters', [...ITEM, '--key', 'ключ']],
    ['--secret-file cannot be read', [...ITEM, '--secret-file', '/nowhere/secret']],
    ['--secret-file has no secret', [...ITEM, '--secret-file', '/dev/null']],
    [
      '--secret-file cannot be combined with --secret',
      [...ITEM, '--secret-file', 'a', '--secret', 'b'],
    ],
    ['--file cannot read stdin if', ['--file', '-', '--secret-file', '-']],
    ['--file cannot read stdin if', ['--file', '-', '--client-key', '-']],
    ['--client-key cannot be read', [...ITEM, '--client-key', '/nowhere/key']],
    ['--client-key: the key must be one JSON object', [...ITEM, '--client-key', '/dev/null']],
    [
      '--secret cannot be combined with --client-key',
      [...ITEM, '--secret', 'a', '--client-key', 'b'],
    ],
    ['--url must be a URL', [...ITEM, '--url', '127.0.0.1:8080']],
    ['--url must be a URL', [...ITEM, '--url', 'ftp://127.0.0.1']],
    ['--url must be a URL', [...ITEM, '--url', 'http://user:word@127.0.0.1']],
  ])('are refused: %s', async (reason, args) => {
    const error = await readFlags(args, {}).catch((error) => error)
    expect(error).toBeInstanceOf(UsageError)
    expect(error.message).toContain(reason)
    expect(error.message).not.toContain('\n')
  })
})
