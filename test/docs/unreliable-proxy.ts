/** A proxy in front of the service that fails a few times for each order, and the programs that send through it. */
import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { spawnChild } from '../support/child-processes.ts'

/** A request as it arrived. */
interface Arrival {
  /** ms since the process began */
  at: number
  headers: IncomingMessage['headers']
  body: string
}

type Step = (service: Service, outgoing: ServerResponse) => void
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

/** Responds itself. @param retryAfter the header; undefined: no such header */
export const respond =
  (status: number, retryAfter?: string): Step =>
  (_, outgoing) => {
    outgoing.writeHead(status, retryAfter === undefined ? {} : { 'retry-after': retryAfter })
    outgoing.end('{}')
  }

/** Lists requests of which no further attempt should be made. @param body that of a valid order */
export const listUselessRetries = (body: string) => [
  { body: '{}', script: [] }, // the service refuses it
  { body, script: [respond(409)] }, // without Retry-After
  { body, script: [respond(503, '3600')] }, // later than a client should wait
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
    step(async () => {
      const { method, url, rawHeaders } = incoming
      const forwarded = request({ port, host: '127.0.0.1', method, path: url, headers: rawHeaders })
      forwarded.end(body)
      const [response] = await once(forwarded, 'response')
      return response
    }, outgoing)
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

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** Runs a program of docs/clients to its end. */
export async function runClient(
  [program, ...args]: string[],
  { key, body, env }: { key: string; body: string; env: Record<string, string> },
) {
  const child = spawnChild(program as string, [...args, key, body], {
    cwd: ROOT,
    env: { PATH: process.env.PATH, TMPDIR: process.env.TMPDIR, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [stdout, stderr] = await Promise.all([
    text(child.stdout as Readable),
    text(child.stderr as Readable),
    once(child, 'close'),
  ])
  return { code: child.exitCode, stdout, stderr }
}
