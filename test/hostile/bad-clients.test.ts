import { execFileSync } from 'node:child_process'
import { Agent } from 'node:http'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, onTestFinished, test } from 'vitest'
import { newKey, ORDER, send } from '../support/client.ts'
import { formatOrder, openSocket, type RawResponse, type RawSocket } from '../support/raw-socket.ts'
import { startService } from '../support/service.ts'
import { hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

/** Instead of the service's own limits of 10 and 15 s. */
const SHORT_MS = 1_000

/** For tests of many thousand requests or connections. */
const TEST_MS = 120_000

const BODY = JSON.stringify(ORDER)

/** Starts a service that gives requests little time to arrive. */
async function startWithShortTimeouts() {
  const service = await startService()
  service.app.server.headersTimeout = SHORT_MS
  service.app.server.requestTimeout = SHORT_MS
  return service
}

/** Expects that the service still creates orders. On a busy machine it may be overloaded at first. */
async function expectAlive(port: number): Promise<void> {
  const reply = await until(async () => {
    const reply = await send(port)
    return reply.status !== 503 && reply
  })
  expect(reply.status).toBe(201)
}

const statuses = (client: RawSocket) => client.responses().map(({ status }) => status)
const waitUntilClosed = (client: RawSocket) => until(client.isClosed)

function expectProblem(response: RawResponse | undefined, status: number, code: string): void {
  expect(response).toMatchObject({
    status,
    headers: { 'content-type': 'application/problem+json; charset=utf-8' },
  })
  expect(JSON.parse(response?.text ?? '')).toMatchObject({ status, code })
}

/** Expects a 408 and nothing else. */
function expectTimeout(client: RawSocket): void {
  const [response, ...others] = client.responses()
  expectProblem(response, 408, 'request-timeout')
  expect(others).toEqual([])
}

const countConnections = ({ app }: Awaited<ReturnType<typeof startService>>) =>
  new Promise<number>((resolve, reject) =>
    app.server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
  )

describe('a client that is too slow', () => {
  test.each([
    ['its headers', formatOrder().slice(0, 40)],
    ['its body', formatOrder({ lines: ['Content-Length: 60000'], payload: '{' })],
    [
      'the chunks of its body',
      formatOrder({ lines: ['Transfer-Encoding: chunked'], payload: 'ffff\r\n{' }),
    ],
  ])('with %s gets 408, while others are served', async (_name, start) => {
    const service = await startWithShortTimeouts()
    const client = openSocket(service.port, start)
    let served = 0
    await until(async () => {
      // A byte at a time, so that it is neither idle nor complete. A zero is valid in all three places.
      if (client.socket.writable) client.socket.write('0')
      await expectAlive(service.port)
      served++
      return client.isClosed()
    })
    expectTimeout(client)
    expect(await service.countOrders()).toBe(served)
    await expectAlive(service.port)
  })

  test('that never sends the body that it announced gets 408', async () => {
    const service = await startWithShortTimeouts()
    const client = openSocket(service.port, formatOrder({ payload: '' }))
    await waitUntilClosed(client)
    expectTimeout(client)
    expect(await service.countOrders()).toBe(0)
    await expectAlive(service.port)
  })

  test('that never sends anything gets 408', async () => {
    const service = await startWithShortTimeouts()
    const client = openSocket(service.port)
    await waitUntilClosed(client)
    expectTimeout(client)
    await expectAlive(service.port)
  })
})

describe('a client that disconnects', () => {
  test.each([
    ['before it sent anything', ''],
    ['in its headers', formatOrder().slice(0, 40)],
    ['in its body', formatOrder({ payload: BODY.slice(0, 10) })],
    ['in a chunk', formatOrder({ lines: ['Transfer-Encoding: chunked'], payload: 'ff\r\n{' })],
  ])('%s leaves no connection and no order behind', async (_name, bytes) => {
    const service = await startService()
    const client = openSocket(service.port, bytes)
    client.socket.end()
    await waitUntilClosed(client)
    await until(async () => (await countConnections(service)) === 0)
    expect(statuses(client).filter((status) => status !== 400)).toEqual([])
    expect(await service.countOrders()).toBe(0)
    await expectAlive(service.port)
  })

  test.each(['/orders', '/nothing'])('in its body to %s is no error in the log', async (path) => {
    const service = await startService()
    const bytes = formatOrder({ payload: BODY.slice(0, 10) }).replace('/orders', path)
    const client = openSocket(service.port)
    service.app.server.once('request', () => setImmediate(() => client.socket.resetAndDestroy()))
    client.socket.write(bytes)
    await waitUntilClosed(client)
    await until(async () => (await countConnections(service)) === 0)
    await service.app.close()
    expect(service.logLines.filter(({ level }) => Number(level) >= 50)).toEqual([])
  })
})

describe('a body in small chunks', () => {
  /** Formats an order in chunks of one byte. */
  function formatChunks(count: number): string {
    const body = BODY.padEnd(count)
    const payload = `${body.replace(/./g, '1\r\n$&\r\n')}0\r\n\r\n`
    return formatOrder({ body, lines: ['Transfer-Encoding: chunked'], payload })
  }

  test('is read completely', async () => {
    const { port } = await startService()
    const client = openSocket(port, formatChunks(4_096))
    await until(() => client.responses().length === 1)
    expect(statuses(client)).toEqual([201])
  })

  test('is refused if it has too many', async () => {
    const { port } = await startService()
    const client = openSocket(port, formatChunks(4_097))
    await until(() => client.responses().length === 1)
    expect(statuses(client)).toEqual([400])
  })
})

describe('two thousand idle connections', () => {
  test(
    'do not prevent new ones, and close at once with the service',
    async () => {
      const count = limitConnections(2_000)
      const service = await startService()
      // No timeout may close them before the service does.
      service.app.server.headersTimeout = service.app.server.requestTimeout = 2 * TEST_MS
      const idle: RawSocket[] = []
      while (idle.length < count) {
        for (let i = 0; i < 100 && idle.length < count; i++) idle.push(openSocket(service.port))
        // A hundred at a time: the kernel drops connections beyond the backlog.
        await until(async () => (await countConnections(service)) === idle.length)
      }
      const replies = await Promise.all(Array.from({ length: 20 }, () => send(service.port)))
      expect(replies.map(({ status }) => status)).toEqual(Array(20).fill(201))
      expect(idle.filter((client) => client.isClosed())).toEqual([])

      const closing = service.app.close()
      await until(() => idle.every((client) => client.isClosed()))
      await closing
    },
    TEST_MS,
  )
})

/** How many connections this process may open: it has both ends of each, and other files. */
function limitConnections(wanted: number): number {
  const limit = execFileSync('sh', ['-c', 'ulimit -n'], { encoding: 'utf8' }).trim()
  const affordable = limit === 'unlimited' ? wanted : Math.floor((Number(limit) - 200) / 2)
  if (affordable < wanted)
    console.error(`only ${affordable} idle connections: ulimit -n is ${limit}`)
  return Math.min(wanted, affordable)
}

describe('pipelined requests', () => {
  const COUNT = 20

  test('each create an order, and get their responses in their order', async () => {
    const { port, countOrders } = await startService()
    const keys = Array.from({ length: COUNT }, newKey)
    const client = openSocket(port, keys.map((key) => formatOrder({ key })).join(''))
    await until(() => client.responses().length === COUNT)
    expect(statuses(client)).toEqual(Array(COUNT).fill(201))
    expect(client.responses().map(({ text }) => JSON.parse(text).order.idempotency_key)).toEqual(
      keys,
    )
    expect(await countOrders()).toBe(COUNT)
    await expectAlive(port)
  })

  test('with one key create one order', async () => {
    const { port, countOrders } = await startService()
    const key = newKey()
    const client = openSocket(port, formatOrder({ key }).repeat(COUNT))
    await until(() => client.responses().length === COUNT)
    const created = client.responses().filter(({ status }) => status === 201)
    const [first] = created
    expect(new Set(created.map(({ text }) => text))).toEqual(new Set([first?.text]))
    const firsts = created.filter(({ headers }) => headers['idempotency-replayed'] === undefined)
    expect(firsts).toHaveLength(1)
    for (const response of client.responses().filter(({ status }) => status !== 201)) {
      expectProblem(response, 409, 'request-in-progress')
    }
    expect(await countOrders()).toBe(1)
    expect((await send(port, { key })).text).toBe(first?.text)
    await expectAlive(port)
  })
})

describe('a body that is longer than its Content-Length', () => {
  test('ends there, and the rest is not taken for a request', async () => {
    const { port, countOrders } = await startService()
    const key = newKey()
    const client = openSocket(port, formatOrder({ key, payload: `${BODY}}} left over\r\n\r\n` }))
    await waitUntilClosed(client)
    // Its own response or none, but never the refusal of the rest.
    expect([[], [201], [201, 400]]).toContainEqual(statuses(client))
    // Without a response, the order may still be in flight.
    expect((await send(port, { key, headers: { prefer: 'wait=30' } })).status).toBe(201)
    expect(await countOrders()).toBe(1)
    await expectAlive(port)
  })

  test('creates no order if the signature is that of all bytes', async () => {
    const { port, countOrders } = await startService()
    const lines = [`Content-Length: ${BODY.length}`]
    const client = openSocket(port, formatOrder({ body: `${BODY} left over\r\n\r\n`, lines }))
    await waitUntilClosed(client)
    expect([[], [401], [401, 400]]).toContainEqual(statuses(client))
    expect(await countOrders()).toBe(0)
    await expectAlive(port)
  })
})

/** Request smuggling: a proxy and the service disagree on where a request ends (RFC 9112 §11.2). */
describe('a request whose end is ambiguous', () => {
  const length = `Content-Length: ${BODY.length}`
  test.each([
    ['Content-Length and Transfer-Encoding', [length, 'Transfer-Encoding: chunked']],
    ['Transfer-Encoding and Content-Length', ['Transfer-Encoding: chunked', length]],
    ['two lengths', [length, 'Content-Length: 3']],
    ['twice the same length', [length, length]],
    ['a list of lengths', [`${length}, ${BODY.length}`]],
    ['a length with a sign', [`Content-Length: +${BODY.length}`]],
    ['a length in hex', ['Content-Length: 0x2f']],
    ['a negative length', ['Content-Length: -1']],
    ['a length that overflows', [`Content-Length: 1844674407370955${'1'.repeat(10)}`]],
    ['a space before the colon', [`Content-Length : ${BODY.length}`]],
    ['an encoding that is not chunked', ['Transfer-Encoding: identity']],
    ['chunked, but not last', ['Transfer-Encoding: chunked, identity']],
    ['something like chunked', ['Transfer-Encoding: xchunked']],
  ])('(%s) is refused, and nothing after it is read', async (_name, lines) => {
    const { port, countOrders } = await startService()
    const smuggled = formatOrder()
    const chunks = `${BODY.length.toString(16)}\r\n${BODY}\r\n0\r\n\r\n`
    for (const payload of [BODY, chunks, `0\r\n\r\n`]) {
      const client = openSocket(port, `${formatOrder({ lines, payload })}${smuggled}`)
      await waitUntilClosed(client)
      expectRefused(client)
    }
    expect(await countOrders()).toBe(0)
    await expectAlive(port)
  })

  test.each([
    ['a size that is no number', 'zz\r\n'],
    ['a size with a sign', `+2f\r\n${BODY}\r\n0\r\n\r\n`],
    ['a size that overflows', `${'f'.repeat(20)}\r\n${BODY}`],
    ['more in it than it says', `3\r\n${BODY}\r\n0\r\n\r\n`],
    ['line feeds alone', `2f\n${BODY}\n0\n\n`],
    ['extensions without end', `2f;${'a'.repeat(20_000)}\r\n${BODY}\r\n0\r\n\r\n`],
  ])('(a chunk with %s) is refused', async (_name, payload) => {
    const { port, countOrders } = await startService()
    const client = openSocket(port, formatOrder({ lines: ['Transfer-Encoding: chunked'], payload }))
    await waitUntilClosed(client)
    expectRefused(client)
    expect(await countOrders()).toBe(0)
    await expectAlive(port)
  })
})

/** Expects a 400 and nothing else. */
function expectRefused(client: RawSocket): void {
  const [response, ...others] = client.responses()
  expectProblem(response, 400, 'bad-request')
  expect(others).toEqual([])
}

describe('malformed headers', () => {
  const host = 'Host: 127.0.0.1\r\n'
  test.each([
    ['line feeds alone', formatOrder().replaceAll('\r\n', '\n')],
    ['one line feed alone', formatOrder().replace(host, 'Host: 127.0.0.1\n')],
    ['a carriage return alone', formatOrder().replace(host, 'Host: 127.0.0.1\r')],
    ['a folded line', formatOrder().replace(host, `${host}X-Other: a\r\n b\r\n`)],
    ['a key on a folded line', formatOrder().replace('Idempotency-Key: ', 'Idempotency-Key:\r\n ')],
    ['a NUL in a value', formatOrder().replace(host, `${host}X-Other: a\0b\r\n`)],
    ['a NUL in a name', formatOrder().replace(host, `${host}X-\0: a\r\n`)],
    ['a NUL in the path', formatOrder().replace('/orders', '/orders\0')],
    ['a line without a colon', formatOrder().replace(host, `${host}nonsense\r\n`)],
    ['an unknown version of HTTP', formatOrder().replace('HTTP/1.1', 'HTTP/1.9')],
  ])('with %s are refused with 400', async (_name, bytes) => {
    const { port, countOrders } = await startService()
    const client = openSocket(port, bytes)
    await waitUntilClosed(client)
    expect(client.responses()).toHaveLength(1)
    expectProblem(client.responses()[0], 400, 'bad-request')
    expect(await countOrders()).toBe(0)
    await expectAlive(port)
  })
})

/** Each costs an HMAC and the look-up of a counter. */
const FLOOD = 20_000
/** SIGNATURE_FAILURES_MAX by default */
const FAILURES = 100
/**
 * 2 MB. The heap grows by a tenth of that in any case; if only the headers of each request were kept,
 * it would be 7 MB.
 */
const MAX_GROWTH_BYTES = FLOOD * 100

describe('a flood of wrong signatures', () => {
  test(
    'is refused with 401, then with 429, and takes no memory and one counter in Redis',
    async () => {
      const service = await startService({
        redis: hasRedis,
        // The window is longer than the test. The test keeps the log in memory, so it must not grow.
        env: { RATE_LIMIT_WINDOW_SECONDS: '3600', LOG_LEVEL: 'error' },
      })
      const { port, countOrders, redisSpace } = service
      const agent = new Agent({ keepAlive: true, maxSockets: 16 })
      onTestFinished(() => agent.destroy())
      // The keys of one order are in Redis from the start.
      await expectAlive(port)
      const redisKeys = async () => {
        const { redis } = redisSpace ?? {}
        return redis && (await redis.keys('*')).length
      }
      const keysBefore = await redisKeys()

      const tally = new Map<string, number>()
      const flood = async (count: number) => {
        let left = count
        const sendOneByOne = async () => {
          while (left-- > 0) {
            const reply = await send(port, { agent, signature: '0'.repeat(64) })
            const outcome = `${reply.status} ${reply.json.code}`
            tally.set(outcome, (tally.get(outcome) ?? 0) + 1)
            if (reply.status === 429) expect(reply.headers['retry-after']).toMatch(/^[1-9]\d*$/)
          }
        }
        await Promise.all(Array.from({ length: 16 }, sendOneByOne))
      }
      // A tenth of it first: what is allocated once does not count.
      await flood(FLOOD / 10)
      const heapBefore = measureHeap()
      await flood(FLOOD - FLOOD / 10)
      expect(measureHeap() - heapBefore).toBeLessThan(MAX_GROWTH_BYTES)

      expect(Object.fromEntries(tally)).toEqual({
        '401 signature-invalid': FAILURES,
        '429 rate-limit-exceeded': FLOOD - FAILURES,
      })
      expect(await redisKeys()).toBe(keysBefore && keysBefore + 1)
      expect(await countOrders()).toBe(1)
      await expectAlive(port)
    },
    TEST_MS,
  )
})

/** Measures the heap after a full collection. */
function measureHeap(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  return process.memoryUsage().heapUsed
}
