/** Connections on which a test sends bytes as they are. */
import { connect, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'
import { newKey, ORDER, sign } from './client.ts'

/** One of the responses on a connection. */
export interface RawResponse {
  status: number
  headers: Record<string, string>
  text: string
}

export interface RawSocket {
  socket: Socket
  /** those that were received completely */
  responses(): RawResponse[]
  isClosed(): boolean
}

/** Opens a connection and sends bytes; it closes when the test is finished. */
export function openSocket(port: number, bytes = ''): RawSocket {
  const socket = connect(port, '127.0.0.1')
  let received = ''
  socket.setEncoding('latin1')
  socket.on('data', (chunk) => {
    received += chunk
  })
  socket.on('error', () => {}) // a reset closes it, which is what the tests look at
  if (bytes !== '') socket.write(bytes)
  onTestFinished(() => void socket.destroy())
  return { socket, responses: () => parseResponses(received), isClosed: () => socket.closed }
}

/** Splits the bytes of a connection into responses, by their Content-Length. */
function parseResponses(received: string): RawResponse[] {
  const responses: RawResponse[] = []
  let rest = received
  for (;;) {
    const end = rest.indexOf('\r\n\r\n')
    if (end < 0) return responses
    const [statusLine = '', ...lines] = rest.slice(0, end).split('\r\n')
    const headers: Record<string, string> = {}
    for (const line of lines) {
      const [name = '', ...value] = line.split(': ')
      headers[name.toLowerCase()] = value.join(': ')
    }
    const bodyEnd = end + 4 + Number(headers['content-length'] ?? 0)
    if (rest.length < bodyEnd) return responses
    const text = rest.slice(end + 4, bodyEnd)
    responses.push({ status: Number(statusLine.split(' ')[1]), headers, text })
    rest = rest.slice(bodyEnd)
  }
}

export interface OrderBytes {
  key?: string
  body?: string
  /** by default a valid one */
  signature?: string
  /** header lines, by default the Content-Length */
  lines?: string[]
  /** what follows the headers, by default the body */
  payload?: string
}

/** Formats a signed request for an order, valid unless options break it. */
export function formatOrder({
  key,
  body = JSON.stringify(ORDER),
  signature = sign(body),
  lines,
  payload,
}: OrderBytes = {}) {
  return [
    'POST /orders HTTP/1.1',
    'Host: 127.0.0.1',
    'Content-Type: application/json',
    `Idempotency-Key: ${key ?? newKey()}`,
    `X-Signature: ${signature}`,
    ...(lines ?? [`Content-Length: ${Buffer.byteLength(body)}`]),
    '',
    payload ?? body,
  ].join('\r\n')
}
