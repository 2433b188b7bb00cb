import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'

/** What a server does with a request that has arrived. */
export type Step = (response: ServerResponse) => void

export const ORDER_ID = '0191e2a0-0000-7000-8000-000000000001'

export function answers(status: number, body: object, headers: Record<string, string> = {}): Step {
  return (response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(JSON.stringify(body))
  }
}

export const created = answers(201, { order: { id: ORDER_ID } })

export const refuses = (status: number, code: string, headers: Record<string, string> = {}) =>
  answers(status, { status, code, detail: `This is ${code}.` }, headers)

/** Cuts the connection without an answer. */
export const resets: Step = (response) => void response.socket?.resetAndDestroy()

/** Cuts the connection in the middle of the answer. */
export const breaksOff: Step = (response) => {
  response.writeHead(201, { 'content-length': 100 })
  response.write('{"order":', () => response.socket?.destroy())
}

/** Never answers. */
export const hangs: Step = () => {}

/**
 * Starts an HTTP server that does one step for each request; the last one, from then on, for all.
 *
 * @returns the requests that have arrived so far
 */
export async function startScriptedServer(...script: Step[]) {
  const requests: { path: string; key: unknown; signature: unknown; body: Buffer }[] = []
  const server = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray())
    const { 'idempotency-key': key, 'x-signature': signature } = request.headers
    requests.push({ path: `${request.method} ${request.url}`, key, signature, body })
    script[Math.min(requests.length, script.length) - 1]?.(response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}`, requests }
}
