/** A proxy in front of the service that fails a few times for each order, and the programs that send through it. */
import { once } from 'node:events'
import {
  createServer,
  type IncomingMessage,
  request,
  type Server,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished } from 'vitest'
import { newKey } from '../support/client.ts'
import { runProgram } from '../support/run-program.ts'

/** A request as it arrived. */
interface Arrival {
  /** ms since the process began */
  at: number
  headers: IncomingMessage['headers']
  body: string
}

type Step = (service: Service, outgoing: ServerResponse, proxy: Server) => void
type Service = () => Promise<IncomingMessage>

/** Passes the request on, and the response back. */
const pass: Step = async (forward, outgoing) => {
  const response = await forward()
  outgoing.writeHead(response.statusCode ?? 0, response.rawHeaders)
  response.pipe(outgoing)
}

/** Passes the request on, and cuts the connection instead of the response: the order was created. */
export const loseResponse: Step = async (forward, outgoing) => {
  ;(await forward()).resume()
  outgoing.socket?.destroy()
}

/** Passes the request on, and cuts the connection in the body of the response: the order was created. */
const truncateResponse: Step = async (forward, outgoing) => {
  const response = await forward()
  response.resume()
  outgoing.writeHead(response.statusCode ?? 0, response.rawHeaders)
  outgoing.write('{"order":', () => outgoing.socket?.destroy())
}

/** Longer than the first back-off of the programs. */
const REFUSED_FOR_MS = 500

/** Cuts the connection, and refuses further ones for a short time. */
const refuseConnections: Step = (_, outgoing, proxy) => {
  const { port } = proxy.address() as AddressInfo
  proxy.close()
  outgoing.socket?.destroy()
  setTimeout(() => proxy.listen(port, '127.0.0.1'), REFUSED_FOR_MS)
}

/** Responds itself. */
const respond =
  (status: number, headers: Record<string, string> = {}): Step =>
  (_, outgoing) => {
    outgoing.writeHead(status, headers).end('{}')
  }

/** The responses after which no further attempt should be made. */
const FINAL_RESPONSES = [
  respond(400),
  respond(409), // without Retry-After
  respond(503, { 'retry-after': '3600' }), // later than a client should wait
]

/**
 * Starts a proxy in front of the service at this port; it closes when the test is finished.
 *
 * @param script what it does with the first requests of each idempotency key; it passes on all further ones
 */
export async function startUnreliableProxy(port: number, ...script: Step[]) {
  const arrivals = new Map<unknown, Arrival[]>()
  const proxy = createServer(async (incoming, outgoing) => {
    const { headers } = incoming
    const key = headers['idempotency-key']
    const body = Buffer.concat(await incoming.toArray())
    const earlier = arrivals.get(key) ?? []
    const step = script[earlier.length] ?? pass
    arrivals.set(key, [...earlier, { at: performance.now(), headers, body: body.toString() }])
    const forward = async () => {
      const { method, url, rawHeaders } = incoming
      const forwarded = request({ port, host: '127.0.0.1', method, path: url, headers: rawHeaders })
      forwarded.end(body)
      const [response] = await once(forwarded, 'response')
      return response
    }
    step(forward, outgoing, proxy)
  })
  await once(proxy.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => {
    proxy.closeAllConnections()
    proxy.close()
  })
  return {
    url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    /** the requests with this idempotency key so far */
    listArrivals: (key: string) => arrivals.get(key) ?? [],
  }
}

/** Runs a program of docs/clients to its end. */
export function runClient(
  command: string[],
  { key, body, env }: { key: string; body: string; env: Record<string, string> },
) {
  return runProgram([...command, key, body], { env: { TMPDIR: process.env.TMPDIR, ...env } })
}

/** Sends an order through a proxy of its own for each final response. */
export const countFinalAttempts = (command: string[], body: string) =>
  Promise.all(
    FINAL_RESPONSES.map(async (response) => {
      const { url, listArrivals } = await startUnreliableProxy(0, response)
      const key = newKey()
      const { code } = await runClient(command, { key, body, env: { ORDER_URL: url } })
      return { code, attempts: listArrivals(key).length }
    }),
  )

/** What {@link countFinalAttempts} returns if no response is retried. */
export const ONE_ATTEMPT_EACH = FINAL_RESPONSES.map(() => ({ code: 1, attempts: 1 }))

/** The failures before a response. */
export const FAILURES = [
  refuseConnections,
  truncateResponse,
  respond(429, { 'retry-after': '1' }),
  respond(500, { 'x-ratelimit-reset': '60' }), // which is not to be waited for
  respond(409, { 'retry-after': '0' }),
]

/** Expects that a request was repeated after each failure, with the same body and not too early. */
export function expectAttempts(arrivals: Arrival[], body: string): void {
  expect(arrivals.map((arrival) => arrival.body)).toEqual(Array(FAILURES.length + 1).fill(body))
  const times = arrivals.map(({ at }) => at)
  expect((times[3] as number) - (times[2] as number)).toBeGreaterThanOrEqual(990) // Retry-After: 1
}
