/** An HTTP server with scripted responses. */
import { ok } from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import { onTestFinished } from 'vitest'

/** What the server does when a request has arrived. */
export type Step = (response: ServerResponse) => void

export const ORDER_ID = '0191e2a0-0000-7000-8000-000000000001'

export function respondWith(
  status: number,
  body: object,
  headers: Record<string, string> = {},
): Step {
  return (response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(JSON.stringify(body))
  }
}

export const respondCreated = respondWith(201, { order: { id: ORDER_ID } })

export function refuseWith(status: number, code: string, headers?: Record<string, string>): Step {
  return respondWith(status, { status, code, detail: `This is ${code}.` }, headers)
}

/** Responds like a proxy whose service is down. */
export const respondWithHtml: Step = (response) => void response.writeHead(502).end('<html>')

/** Resets the connection without a response. */
export const resetConnection: Step = (response) => void response.socket?.resetAndDestroy()

/** Closes the connection in the middle of the response. */
export const truncateResponse: Step = (response) => {
  response.writeHead(201, { 'content-length': 100 })
  response.write('{"order":', () => response.socket?.destroy())
}

export const neverRespond: Step = () => {}

/** A request as it arrived. */
interface Arrival {
  path: string
  key: unknown
  signature: unknown
  headers: IncomingHttpHeaders
  body: Buffer
}

/**
 * Starts a server that runs the next step for each request, and the last step for all further ones.
 *
 * @returns `requests`: those that have arrived so far
 */
export async function startScriptedServer(...script: Step[]) {
  const requests: Arrival[] = []
  const server = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray())
    const { 'idempotency-key': key, 'x-signature': signature } = request.headers
    const path = `${request.method} ${request.url}`
    requests.push({ path, key, signature, headers: request.headers, body })
    script[Math.min(requests.length, script.length) - 1]?.(response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const address = server.address()
  ok(typeof address === 'object' && address !== null)
  return { url: `http://127.0.0.1:${address.port}`, requests }
}
