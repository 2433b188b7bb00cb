import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { newKey, ORDER, sign } from '../support/client.ts'
import { createTemporaryFolder, runBinary } from '../support/process.ts'
import { runProgram } from '../support/run-program.ts'
import { startService } from '../support/service.ts'
import { ORDER_ID, refuseWith, respondCreated, startScriptedServer } from './scripted-server.ts'

/** The installed command `order-once`. */
const BINARY = 'src/main.ts'
const ITEM = ['--item', 'book', '--amount', '500']

interface RunOptions {
  entry?: string
  stdin?: string
  env?: Record<string, string>
}

/** Runs a command in a process of its own, by default as `npm run order` does. */
function run(
  args: string[],
  { entry = 'scripts/order.ts', stdin = '', env = {} }: RunOptions = {},
) {
  return runProgram([process.execPath, '--import', 'tsx', entry, ...args], { stdin, env })
}

describe('the command', () => {
  test('sends an order, reports the result and exits with 0', async () => {
    const { port, countOrders } = await startService()
    const url = ['--url', `http://127.0.0.1:${port}`]
    const first = await run([...ITEM, ...url, '--key', 'key-001'])
    expect(first).toMatchObject({ code: 0, stderr: '' })
    expect(first.stdout).toContain(`POST http://127.0.0.1:${port}/orders\n`)
    expect(first.stdout).toContain('idempotency-key: key-001\n')
    expect(first.stdout).toContain(`\n${JSON.stringify(ORDER)}\n`)
    expect(first.stdout).toMatch(/^Attempt 1: 201 \(\d+ ms\)$/m)
    expect(first.stdout).toContain('201 Created\n')
    expect(first.stdout).toMatch(/\nNew order created\. Idempotency key: key-001\n$/)

    const again = await run([...ITEM, ...url, '--key', 'key-001'])
    expect(again.code).toBe(0)
    expect(again.stdout).toContain('idempotency-replayed: true\n')
    expect(again.stdout).toMatch(/\nReplay of an existing order\. Idempotency key: key-001\n$/)
    expect(await countOrders()).toBe(1)
  })

  test('exits with 1 and a reason in one line if no order was received', async () => {
    const { port } = await startService()
    const { code, stdout, stderr } = await run([
      ...['--item', 'book', '--amount=-1'],
      ...['--url', `http://127.0.0.1:${port}`],
    ])
    expect(code).toBe(1)
    expect(stdout).toContain('400 Bad Request\n')
    expect(stderr).toMatch(/^No order received: 400 invalid-body\. amount must be .*\n$/)
  })

  test('retries, then stops and says how to continue', async () => {
    const { url, requests } = await startScriptedServer(refuseWith(503, 'overloaded'))
    const { code, stdout, stderr } = await run([
      ...ITEM,
      ...['--url', url, '--key', 'key-001', '--attempts', '2'],
    ])
    expect(code).toBe(1)
    expect(stdout).toMatch(/^Attempt 1: 503 overloaded \(\d+ ms\); next attempt in 0(\.\d+)? s$/m)
    expect(stdout).toMatch(/^Attempt 2: 503 overloaded \(\d+ ms\)$/m)
    expect(stderr).toBe(
      'No order received after 2 attempts (--attempts allows no more): 503 overloaded. This is overloaded. Retry with --key key-001; this cannot create a second order.\n',
    )
    expect(requests).toHaveLength(2)
  })

  test('sends the bytes of stdin unchanged, signed with the first of several secrets', async () => {
    const { url, requests } = await startScriptedServer(respondCreated)
    const bytes = ' {"user_id": "ü",\n"item":1e2}\n\n'
    const { code } = await run(['--file', '-', '--url', url], {
      stdin: bytes,
      env: { HMAC_SECRET: 'new secret,old secret' },
    })
    expect(code).toBe(0)
    expect(requests).toMatchObject([
      {
        body: Buffer.from(bytes),
        signature: sign(bytes, 'new secret'),
        key: expect.stringMatching(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/),
      },
    ])
  })

  test('takes the secret from a file, from stdin or from .env', async () => {
    const { url, requests } = await startScriptedServer(...Array(3).fill(respondCreated))
    const folder = await createTemporaryFolder()
    await writeFile(join(folder, 'secret'), 'of a file\n')
    await writeFile(join(folder, '.env'), 'HMAC_SECRET=of .env\n')
    const args = ['order', ...ITEM, '--url', url]
    await runBinary([...args, '--secret-file', 'secret'], {}, folder)
    await run([...args.slice(1), '--secret-file', '-'], { stdin: 'of stdin\n' })
    await runBinary(args, {}, folder)
    const body = JSON.stringify({ user_id: 'user-1', item: 'book', amount: 500 })
    expect(requests.map(({ signature }) => signature)).toEqual(
      ['of a file', 'of stdin', 'of .env'].map((secret) => sign(body, secret)),
    )
  })

  test('signs with the key of a client, which keygen printed', async () => {
    const [privateKey = '', entry] = (await runBinary(['keygen', 'shop-1'])).stdout.split('\n')
    const folder = await createTemporaryFolder()
    await writeFile(join(folder, 'key.json'), privateKey)
    await writeFile(join(folder, 'clients.json'), `{"clients":[${entry}]}`)
    const { port } = await startService({ env: { CLIENTS_FILE: join(folder, 'clients.json') } })
    const flags = ['--url', `http://127.0.0.1:${port}`, '--client-key', 'key.json']
    const { code, stdout, stderr } = await runBinary(['order', ...ITEM, ...flags], {}, folder)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toContain('\nsignature-input: sig1=("@method" "@authority" "@path" ')
    expect(stdout).toContain('New order created.')
  })

  test.each<[string, { file?: Buffer; env?: Record<string, string> }]>([
    ['--secret-file: a secret must be UTF-8', { file: Buffer.from('caf\xe9\n', 'latin1') }],
    [
      '--secret-file: a secret must not have control or invisible characters',
      { file: Buffer.from('ab\n', 'utf16le') },
    ],
    ['--secret-file has no secret', { file: Buffer.from('\n') }],
    ['HMAC_SECRET: a secret must not be in quotes', { env: { HMAC_SECRET: '"a"' } }],
    ['HMAC_SECRET must not be in quotes', { env: { HMAC_SECRET: '"a,b"' } }],
    ['HMAC_SECRET has no secret', { env: { HMAC_SECRET: '' } }],
  ])('refuses a damaged secret: %s', async (line, { file, env }) => {
    const folder = await createTemporaryFolder()
    if (file) await writeFile(join(folder, 'secret'), file)
    const flags = file ? ['--secret-file', 'secret'] : []
    expect(await runBinary(['order', ...ITEM, ...flags], env, folder)).toEqual({
      code: 2,
      stdout: '',
      stderr: `order-once: ${line}\n`,
    })
  })

  test('prints no control characters of a server', async () => {
    const hostile = JSON.stringify({ code: 'a\u001b[2J', detail: 'b\u009b2J\u0007' })
    const { url } = await startScriptedServer((response) => {
      response.writeHead(400, { 'x-request-id': 'c' }).end(`${hostile}\u001b]0;owned\u0007`)
    })
    const { stdout, stderr } = await run([...ITEM, '--url', url])
    expect(stdout).toContain('\\u001b]0;owned\\u0007')
    expect(`${stdout}${stderr}`.replaceAll('\n', '')).not.toMatch(/\p{Cc}/u)
  })

  test('prints JSON with --json, whatever control characters are in the order', async () => {
    const order = { id: ORDER_ID, item: '\u001b[2J\u007f\u009b' }
    const { url } = await startScriptedServer((response) => {
      response.writeHead(201).end(JSON.stringify({ order }))
    })
    const { stdout } = await run([...ITEM, '--url', url, '--json'])
    expect(stdout.trimEnd()).not.toMatch(/\p{Cc}/u)
    expect(JSON.parse(stdout)).toMatchObject({ order })
  })

  test.each([
    ['--attempts', '1'],
    ['--repeat', '2'],
  ])('asks with %s %s whether the service is running if nothing listens', async (...flags) => {
    const url = `http://127.0.0.1:${await freePort()}`
    const { code, stderr } = await run([...ITEM, '--url', url, ...flags])
    expect(code).toBe(1)
    expect(stderr).toContain('Is the service running? Start it with `npm start`.')
  })

  test('sends the bytes of a file, and prints only JSON with --json', async () => {
    const { url, requests } = await startScriptedServer(
      refuseWith(500, 'internal-error'),
      respondCreated,
    )
    const file = join(await createTemporaryFolder(), 'order.json')
    await writeFile(file, JSON.stringify(ORDER))
    const { code, stdout, stderr } = await run(
      [
        ...['order', '--file', file, '--url', url],
        ...['--key', 'key-001', '--secret', 'a,b', '--json'],
      ],
      { entry: BINARY },
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
      stopReason: null,
      status: 201,
      code: null,
      detail: null,
      replayed: false,
      order: { id: ORDER_ID },
    })
    expect(requests[1]?.signature).toBe(sign(JSON.stringify(ORDER), 'a,b'))
  })

  test('reports a network error with --json', async () => {
    const { url } = await startScriptedServer((response) => void response.socket?.destroy())
    const { code, stdout } = await run([...ITEM, '--url', url, '--attempts', '1', '--json'])
    expect(code).toBe(1)
    expect(JSON.parse(stdout)).toMatchObject({
      attempts: [{ error: expect.stringContaining('fetch failed') }],
      stopReason: 'maxAttempts',
      status: null,
      replayed: false,
      order: null,
    })
  })

  test('shows with --repeat that the order was created once', async () => {
    const { port, countOrders } = await startService({ env: { RATE_LIMIT_MAX: '8' } })
    const args = [...ITEM, '--url', `http://127.0.0.1:${port}`, '--repeat', '10']
    const { code, stdout, stderr } = await run([...args, '--concurrency', '1'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(/^sent +10$/m)
    expect(stdout).toMatch(/^first responses +1$/m)
    expect(stdout).toMatch(/^replays +7$/m)
    expect(stdout).toMatch(/^refused: rate-limit-exceeded +2$/m)
    expect(stdout).toMatch(/^distinct order ids +1$/m)
    expect(stdout).toMatch(/^distinct bodies +1$/m)
    expect(stdout).toMatch(/RATE_LIMIT_MAX=100000\.\nSent 10 times, created once: order .*\n$/)
    expect(await countOrders()).toBe(1)

    const limited = await run([...args, '--key', newKey(), '--json'])
    expect(limited.code).toBe(1)
    expect(JSON.parse(limited.stdout)).toMatchObject({
      sent: 10,
      refusals: { 'rate-limit-exceeded': 10 },
      orderIds: [],
    })
    expect(limited.stderr).toMatch(/^No order received\. Idempotency key: .*\n$/)
  })

  test('prints its help', async () => {
    const help = await run(['--help'])
    expect(help).toMatchObject({ code: 0, stderr: '' })
    expect(help.stdout).toContain('order-once order --item book --amount 500\n')
  })

  test('is one of the commands of the binary, whose help names them all', async () => {
    const help = await run(['--help'], { entry: BINARY })
    expect(help).toMatchObject({ code: 0, stderr: '' })
    for (const name of ['serve', 'migrate', 'cleanup', 'order']) {
      expect(help.stdout).toContain(`\n  order-once ${name} `)
    }
    expect(await run([], { entry: BINARY })).toEqual({ code: 2, stdout: '', stderr: help.stdout })
  })

  test.each<[string, string[]]>([
    ['unknown command "buy"', ['buy']],
    ['--item and --amount are required', ['order', '--item', 'book']],
    ['--amount must be a number', ['order', '--item', 'book', '--amount', 'x']],
  ])('exits with 2 and one line on wrong usage: %s', async (reason, args) => {
    const { code, stdout, stderr } = await run(args, { entry: BINARY })
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(/^order-once: [^\n]+\n$/)
    expect(stderr).toContain(reason)
  })
})
