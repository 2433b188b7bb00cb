import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { newKey, ORDER, sign } from '../support/client.ts'
import { temporaryFolder } from '../support/process.ts'
import { startService } from '../support/service.ts'
import { created, ORDER_ID, refuses, startScriptedServer } from './scripted-server.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const ITEM = ['--item', 'book', '--amount', '500']

/** Runs a command as its users do: `scripts/order.ts`, unless it is another. */
async function run(
  args: string[],
  { entry = 'scripts/order.ts', stdin = '', env = {} as Record<string, string> } = {},
) {
  const child = spawn(process.execPath, ['--import', 'tsx', entry, ...args], {
    cwd: ROOT,
    env: { PATH: process.env.PATH, ...env },
  })
  child.stdin.on('error', () => {}) // it may end without having read all
  child.stdin.end(stdin)
  const [stdout, stderr] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close'),
  ])
  return { code: child.exitCode, stdout, stderr }
}

describe('the command', () => {
  test('sends an order, tells what happened, and exits with 0', async () => {
    const { port, countOrders } = await startService()
    const url = ['--url', `http://127.0.0.1:${port}`]
    const first = await run([...ITEM, ...url, '--key', 'key-001'])
    expect(first).toMatchObject({ code: 0, stderr: '' })
    expect(first.stdout).toContain(`POST http://127.0.0.1:${port}/orders\n`)
    expect(first.stdout).toContain('idempotency-key: key-001\n')
    expect(first.stdout).toContain(`\n${JSON.stringify(ORDER)}\n`)
    expect(first.stdout).toMatch(/^Attempt 1: 201, in \d+ ms$/m)
    expect(first.stdout).toContain('201 Created\n')
    expect(first.stdout).toMatch(/\nA new order, under the key key-001\.\n$/)

    const again = await run([...ITEM, ...url, '--key', 'key-001'])
    expect(again.code).toBe(0)
    expect(again.stdout).toContain('idempotency-replayed: true\n')
    expect(again.stdout).toMatch(/\nA replay of the order, under the key key-001\.\n$/)
    expect(await countOrders()).toBe(1)
  })

  test('exits with 1 without an order, and says why in one line', async () => {
    const { port } = await startService()
    const { code, stdout, stderr } = await run([
      ...['--item', 'book', '--amount=-1'],
      ...['--url', `http://127.0.0.1:${port}`],
    ])
    expect(code).toBe(1)
    expect(stdout).toContain('400 Bad Request\n')
    expect(stderr).toMatch(/^No order: 400 invalid-body\. amount must be .*\n$/)
  })

  test('tries again, and says when it gives up and what to do then', async () => {
    const { url, requests } = await startScriptedServer(refuses(503, 'overloaded'))
    const { code, stdout, stderr } = await run([
      ...ITEM,
      ...['--url', url, '--key', 'key-001', '--attempts', '2'],
    ])
    expect(code).toBe(1)
    expect(stdout).toMatch(/^Attempt 1: 503 overloaded, in \d+ ms; the next in 0(\.\d+)? s$/m)
    expect(stdout).toMatch(/^Attempt 2: 503 overloaded, in \d+ ms$/m)
    expect(stderr).toBe(
      'No order after 2 attempts, and --attempts allows no more: 503 overloaded. This is overloaded. Sent again with --key key-001, it is the same order.\n',
    )
    expect(requests).toHaveLength(2)
  })

  test('sends the bytes of stdin as they are, signed with the first of several secrets', async () => {
    const { url, requests } = await startScriptedServer(created)
    const bytes = ' {"user_id": "ü",\n"item":1e2}\n\n'
    const { code } = await run(['--file', '-', '--url', url], {
      stdin: bytes,
      env: { HMAC_SECRET: 'the new one,the old one' },
    })
    expect(code).toBe(0)
    expect(requests).toMatchObject([
      {
        body: Buffer.from(bytes),
        signature: sign(bytes, 'the new one'),
        key: expect.stringMatching(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/),
      },
    ])
  })

  test('sends the bytes of a file, and nothing but JSON to stdout if so asked', async () => {
    const { url, requests } = await startScriptedServer(refuses(500, 'internal-error'), created)
    const file = join(await temporaryFolder(), 'order.json')
    await writeFile(file, JSON.stringify(ORDER))
    const { code, stdout, stderr } = await run(
      [
        ...['order', '--file', file, '--url', url],
        ...['--key', 'key-001', '--secret', 'a,b', '--json'],
      ],
      { entry: 'src/cli.ts' },
    )
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(JSON.parse(stdout)).toEqual({
      key: 'key-001',
      attempts: [
        {
          at: expect.any(String),
          tookMs: expect.any(Number),
          status: 500,
          code: 'internal-error',
          waitMs: expect.any(Number),
        },
        { at: expect.any(String), tookMs: expect.any(Number), status: 201 },
      ],
      gaveUp: null,
      status: 201,
      code: null,
      detail: null,
      replayed: false,
      order: { id: ORDER_ID },
    })
    expect(requests[1]?.signature).toBe(sign(JSON.stringify(ORDER), 'a,b'))
  })

  test('tells programs, too, that nobody answered', async () => {
    const { url } = await startScriptedServer((response) => void response.socket?.destroy())
    const { code, stdout } = await run([...ITEM, '--url', url, '--attempts', '1', '--json'])
    expect(code).toBe(1)
    expect(JSON.parse(stdout)).toMatchObject({
      attempts: [{ error: expect.stringContaining('fetch failed') }],
      gaveUp: 'maxAttempts',
      status: null,
      replayed: false,
      order: null,
    })
  })

  test('shows with --repeat that the order is created once', async () => {
    const { port, countOrders } = await startService({ env: { RATE_LIMIT_MAX: '8' } })
    const args = [...ITEM, '--url', `http://127.0.0.1:${port}`, '--repeat', '10']
    const { code, stdout, stderr } = await run([...args, '--concurrency', '1'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(/^sent +10$/m)
    expect(stdout).toMatch(/^first answers +1$/m)
    expect(stdout).toMatch(/^replays +7$/m)
    expect(stdout).toMatch(/^refused: rate-limit-exceeded +2$/m)
    expect(stdout).toMatch(/^distinct order ids +1$/m)
    expect(stdout).toMatch(/^distinct bodies +1$/m)
    expect(stdout).toMatch(/RATE_LIMIT_MAX=100000\.\nSent 10 times, created once: .*\n$/)
    expect(await countOrders()).toBe(1)

    const limited = await run([...args, '--key', newKey(), '--json'])
    expect(limited.code).toBe(1)
    expect(JSON.parse(limited.stdout)).toMatchObject({
      sent: 10,
      refusals: { 'rate-limit-exceeded': 10 },
      orderIds: [],
    })
    expect(limited.stderr).toMatch(/^No order came back under the key .*\n$/)
  })

  test('prints help with examples when asked for it', async () => {
    const asked = await run(['--help'])
    expect(asked).toMatchObject({ code: 0, stderr: '' })
    expect(asked.stdout).toContain('order-once order --item book --amount 500\n')
    expect(await run([], { entry: 'src/cli.ts' })).toEqual({
      code: 2,
      stdout: '',
      stderr: asked.stdout,
    })
  })

  test.each<[string, string[]]>([
    ['there is no command "buy"', ['buy']],
    ['--item and --amount are required', ['order', '--item', 'book']],
    ['--amount must be a number', ['order', '--item', 'book', '--amount', 'x']],
  ])('exits with 2 and one line if used wrongly: %s', async (reason, args) => {
    const { code, stdout, stderr } = await run(args, { entry: 'src/cli.ts' })
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(/^order-once: [^\n]+\n$/)
    expect(stderr).toContain(reason)
  })
})
