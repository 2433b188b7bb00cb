import { execFileSync } from 'node:child_process'
import { Agent } from 'node:http'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, onTestFinished, test } from 'vitest'
import { newKey, ORDER, send } from '../support/client.ts'
import { openSocket, orderBytes, type RawAnswer, type RawSocket } from '../support/raw-socket.ts'
import { startService } from '../support/service.ts'
import { hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

/** So that a test need not wait for the service's own limits, of 10 and 15 s. */
const SHORT_MS = 300

/** For tests of many thousand requests or connections. */
const TEST_MS = 120_000

const BODY = JSON.stringify(ORDER)

/** A service that waits only shortly for a request to arrive. */
async function startImpatientService() {
  const service = await startService()
  service.app.server.headersTimeout = SHORT_MS
  service.app.server.requestTimeout = SHORT_MS
  return service
}

/** Whatever was done to it, the service still creates orders. */
async function expectAlive(port: number): Promise<void> {
  expect((await send(port)).status).toBe(201)
}

const statuses = (client: RawSocket) => client.answers().map(({ status }) => status)
const closed = (client: RawSocket) => until(client.isClosed)

function expectProblem(answer: RawAnswer | undefined, status: number, code: string): void {
  expect(answer).toMatchObject({
    status,
    headers: { 'content-type': 'application/problem+json; charset=utf-8' },
  })
  expect(JSON.parse(answer?.text ?? '')).toMatchObject({ status, code })
}

/** Cut off, and told why. */
function expectCutOff(client: RawSocket): void {
  const [answer, ...others] = client.answers()
  expectProblem(answer, 408, 'request-timeout')
  expect(others).toEqual([])
}

const connectionsOf = ({ app }: Awaited<ReturnType<typeof startService>>) =>
  new Promise<number>((resolve, reject) =>
    app.server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
  )

describe('a client that is too slow', () => {
  test.each([
    ['its headers', orderBytes().slice(0, 40)],
    ['its body', orderBytes({ lines: ['Content-Length: 60000'], payload: '{' })],
    [
      'the chunks of its body',
      orderBytes({ lines: ['Transfer-Encoding: chunked'], payload: 'ffff\r\n{' }),
    ],
  ])('with %s is cut off, while others are served', async (_name, start) => {
    const service = await startImpatientService()
    const client = openSocket(service.port, start)
    let served = 0
    await until(async () => {
      // A byte at every look: it is never idle, and never done. A zero is fine in all three places.
      if (client.socket.writable) client.socket.write('0')
      await expectAlive(service.port)
      served++
      return client.isClosed()
    })
    expectCutOff(client)
    expect(served).toBeGreaterThan(1)
    expect(await service.countOrders()).toBe(served)
    await expectAlive(service.port)
  })

  test('that announces a body and never sends it is cut off', async () => {
    const service = await startImpatientService()
    const client = openSocket(service.port, orderBytes({ payload: '' }))
    await closed(client)
    expectCutOff(client)
    expect(await service.countOrders()).toBe(0)
    await expectAlive(service.port)
  })

  test('that never sends anything is cut off', async () => {
    const service = await startImpatientService()
    const client = openSocket(service.port)
    await closed(client)
    expectCutOff(client)
    await expectAlive(service.port)
  })
})

describe('a client that hangs up', () => {
  test.each([
    ['before it sent anything', ''],
    ['in its headers', orderBytes().slice(0, 40)],
    ['in its body', orderBytes({ payload: BODY.slice(0, 10) })],
    ['in a chunk', orderBytes({ lines: ['Transfer-Encoding: chunked'], payload: 'ff\r\n{' })],
  ])('%s leaves neither a connection nor an order', async (_name, bytes) => {
    const service = await startService()
    const client = openSocket(service.port, bytes)
    client.socket.end()
    await closed(client)
    await until(async () => (await connectionsOf(service)) === 0)
    expect(statuses(client).filter((status) => status !== 400)).toEqual([])
    expect(await service.countOrders()).toBe(0)
    await expectAlive(service.port)
  })
})

describe('idle connections', () => {
  test(
    'by the thousand do not keep others out, nor the service from closing',
    async () => {
      const count = affordableConnections(2_000)
      const service = await startService()
      // Only the close may end them, not that they send nothing.
      service.app.server.headersTimeout = service.app.server.requestTimeout = 2 * TEST_MS
      const sending = openSocket(service.port, 'GET / HTTP/1.1\r\n')
      await until(async () => (await connectionsOf(service)) === 1)
      const idle: RawSocket[] = []
      while (idle.length < count) {
        for (let i = 0; i < 100 && idle.length < count; i++) idle.push(openSocket(service.port))
        // A hundred at a time: of more than its backlog the kernel forgets some.
        await until(async () => (await connectionsOf(service)) === idle.length + 1)
      }
      const replies = await Promise.all(Array.from({ length: 20 }, () => send(service.port)))
      expect(replies.map(({ status }) => status)).toEqual(Array(20).fill(201))
      expect(idle.filter((client) => client.isClosed())).toEqual([])

      const closing = service.app.close()
      await until(() => idle.every((client) => client.isClosed()))
      // At once, that is, and not with the one whose request is still waited for.
      expect(sending.isClosed()).toBe(false)
      sending.socket.destroy()
      await closing
    },
    TEST_MS,
  )
})

/** Both ends are in this process, and it has other files open. */
function affordableConnections(wanted: number): number {
  const limit = execFileSync('sh', ['-c', 'ulimit -n'], { encoding: 'utf8' }).trim()
  const affordable = limit === 'unlimited' ? wanted : Math.floor((Number(limit) - 200) / 2)
  if (affordable < wanted)
    console.error(`only ${affordable} idle connections: ulimit -n is ${limit}`)
  return Math.min(wanted, affordable)
}

describe('pipelined requests', () => {
  const COUNT = 20

  test('are all answered, in their order, each with an order of its own', async () => {
    const { port, countOrders } = await startService()
    const keys = Array.from({ length: COUNT }, newKey)
    const client = openSocket(port, keys.map((key) => orderBytes({ key })).join(''))
    await until(() => client.answers().length === COUNT)
    expect(statuses(client)).toEqual(Array(COUNT).fill(201))
    expect(client.answers().map(({ text }) => JSON.parse(text).order.idempotency_key)).toEqual(keys)
    expect(await countOrders()).toBe(COUNT)
    await expectAlive(port)
  })

  test('with one key create one order', async () => {
    const { port, countOrders } = await startService()
    const key = newKey()
    const client = openSocket(port, orderBytes({ key }).repeat(COUNT))
    await until(() => client.answers().length === COUNT)
    const created = client.answers().filter(({ status }) => status === 201)
    const [first] = created
    expect(new Set(created.map(({ text }) => text))).toEqual(new Set([first?.text]))
    const firsts = created.filter(({ headers }) => headers['idempotency-replayed'] === undefined)
    expect(firsts).toHaveLength(1)
    for (const answer of client.answers().filter(({ status }) => status !== 201)) {
      expectProblem(answer, 409, 'request-in-progress')
    }
    expect(await countOrders()).toBe(1)
    expect((await send(port, { key })).text).toBe(first?.text)
    await expectAlive(port)
  })
})

describe('a body that is longer than it was announced', () => {
  test('is cut there: the order is the announced part, and what is left over is no request', async () => {
    const { port, countOrders } = await startService()
    const key = newKey()
    const client = openSocket(port, orderBytes({ key, payload: `${BODY}}} left over\r\n\r\n` }))
    await closed(client)
    // Its own answer or none, never the refusal of what came behind it: then the client repeats it.
    expect([[], [201], [201, 400]]).toContainEqual(statuses(client))
    expect((await send(port, { key })).status).toBe(201)
    expect(await countOrders()).toBe(1)
    await expectAlive(port)
  })

  test('is no order if the signature is that of the whole', async () => {
    const { port, countOrders } = await startService()
    const lines = [`Content-Length: ${BODY.length}`]
    const client = openSocket(port, orderBytes({ body: `${BODY} left over\r\n\r\n`, lines }))
    await closed(client)
    expect([[], [401], [401, 400]]).toContainEqual(statuses(client))
    expect(await countOrders()).toBe(0)
    await expectAlive(port)
  })
})

/** How a request smuggles another past a proxy: the two disagree on where it ends (RFC 9112 §11.2). */
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
  ])('%s, is refused and read no further', async (_name, lines) => {
    const { port, countOrders } = await startService()
    const smuggled = orderBytes()
    const chunks = `${BODY.length.toString(16)}\r\n${BODY}\r\n0\r\n\r\n`
    for (const payload of [BODY, chunks, `0\r\n\r\n`]) {
      const client = openSocket(port, `${orderBytes({ lines, payload })}${smuggled}`)
      await closed(client)
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
  ])('a chunk with %s, is refused', async (_name, payload) => {
    const { port, countOrders } = await startService()
    const client = openSocket(port, orderBytes({ lines: ['Transfer-Encoding: chunked'], payload }))
    await closed(client)
    expectRefused(client)
    expect(await countOrders()).toBe(0)
    await expectAlive(port)
  })
})

/** Once, and nothing that followed was read. */
function expectRefused(client: RawSocket): void {
  const [answer, ...others] = client.answers()
  expectProblem(answer, 400, 'bad-request')
  expect(others).toEqual([])
}

describe('malformed headers', () => {
  const host = 'Host: 127.0.0.1\r\n'
  test.each([
    ['line feeds alone', orderBytes().replaceAll('\r\n', '\n')],
    ['one line feed alone', orderBytes().replace(host, 'Host: 127.0.0.1\n')],
    ['a carriage return alone', orderBytes().replace(host, 'Host: 127.0.0.1\r')],
    ['a folded line', orderBytes().replace(host, `${host}X-Other: a\r\n b\r\n`)],
    ['a key on a folded line', orderBytes().replace('Idempotency-Key: ', 'Idempotency-Key:\r\n ')],
    ['a NUL in a value', orderBytes().replace(host, `${host}X-Other: a\0b\r\n`)],
    ['a NUL in a name', orderBytes().replace(host, `${host}X-\0: a\r\n`)],
    ['a NUL in the path', orderBytes().replace('/orders', '/orders\0')],
    ['a line without a colon', orderBytes().replace(host, `${host}nonsense\r\n`)],
    ['a version of HTTP that there is not', orderBytes().replace('HTTP/1.1', 'HTTP/1.9')],
  ])('with %s are refused with 400', async (_name, bytes) => {
    const { port, countOrders } = await startService()
    const client = openSocket(port, bytes)
    await closed(client)
    expect(client.answers()).toHaveLength(1)
    expectProblem(client.answers()[0], 400, 'bad-request')
    expect(await countOrders()).toBe(0)
    await expectAlive(port)
  })
})

describe('Expect: 100-continue', () => {
  const expecting = (length: number) =>
    orderBytes({ lines: [`Content-Length: ${length}`, 'Expect: 100-continue'], payload: '' })

  test('is answered with 100, and the order with 201', async () => {
    const { port, countOrders } = await startService()
    const client = openSocket(port, expecting(BODY.length))
    await until(() => client.answers().length === 1)
    expect(statuses(client)).toEqual([100])
    client.socket.write(BODY)
    await until(() => client.answers().length === 2)
    expect(statuses(client)).toEqual([100, 201])
    expect(await countOrders()).toBe(1)
    await expectAlive(port)
  })

  test('is answered with 413, not with 100, for a body that is too large', async () => {
    const { port } = await startService()
    const client = openSocket(port, expecting(64 * 1024 + 1))
    await closed(client)
    expect(client.answers()).toHaveLength(1)
    expectProblem(client.answers()[0], 413, 'body-too-large')
    await expectAlive(port)
  })
})

/** Each of them is one HMAC, one look into a map and one answer. */
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
    'is refused with 401, then with 429, and leaves nothing behind',
    async () => {
      const service = await startService({
        redis: hasRedis, // which it must not reach
        // The window outlasts the test; the log is kept by the test, and would be what grows.
        env: { RATE_LIMIT_WINDOW_SECONDS: '3600', LOG_LEVEL: 'error' },
      })
      const { port, countOrders, redisSpace } = service
      const agent = new Agent({ keepAlive: true, maxSockets: 16 })
      onTestFinished(() => agent.destroy())
      // What one order leaves in Redis is there before.
      await expectAlive(port)
      const redisKeys = async () => {
        const { redis } = redisSpace ?? {}
        return redis && (await redis.keys(`${redis.options.keyPrefix}*`)).length
      }
      const keysBefore = await redisKeys()

      const tally = new Map<string, number>()
      const flood = async (count: number) => {
        let left = count
        const lane = async () => {
          while (left-- > 0) {
            const reply = await send(port, { agent, signature: '0'.repeat(64) })
            const answer = `${reply.status} ${reply.json.code}`
            tally.set(answer, (tally.get(answer) ?? 0) + 1)
            if (reply.status === 429) expect(reply.headers['retry-after']).toMatch(/^[1-9]\d*$/)
          }
        }
        await Promise.all(Array.from({ length: 16 }, lane))
      }
      // A tenth of it first: what is made once, and kept for good reason.
      await flood(FLOOD / 10)
      const heapBefore = usedHeap()
      await flood(FLOOD - FLOOD / 10)
      expect(usedHeap() - heapBefore).toBeLessThan(MAX_GROWTH_BYTES)

      expect(Object.fromEntries(tally)).toEqual({
        '401 signature-invalid': FAILURES,
        '429 rate-limit-exceeded': FLOOD - FAILURES,
      })
      expect(await redisKeys()).toBe(keysBefore)
      expect(await countOrders()).toBe(1)
      await expectAlive(port)
    },
    TEST_MS,
  )
})

/** After a full collection, so that it does not depend on when the last one was. */
function usedHeap(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  return process.memoryUsage().heapUsed
}
