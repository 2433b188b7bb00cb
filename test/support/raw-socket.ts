import { connect, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'
import { newKey, ORDER, sign } from './client.ts'

/** An answer as its bytes were on the wire, one among others on a connection. */
export interface RawAnswer {
  status: number
  headers: Record<string, string>
  text: string
}

export interface RawSocket {
  socket: Socket
  /** the answers so far that came whole; the last one's body ends at the latest with the connection */
  answers(): RawAnswer[]
  isClosed(): boolean
}

/** Opens a connection and sends bytes as they are; cut when the test is finished. */
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
  return { socket, answers: () => answersIn(received), isClosed: () => socket.closed }
}

/** Splits what came on a connection into its answers, by their Content-Length. */
function answersIn(received: string): RawAnswer[] {
  const answers: RawAnswer[] = []
  let rest = received
  for (;;) {
    const end = rest.indexOf('\r\n\r\n')
    if (end < 0) return answers
    const [statusLine = '', ...lines] = rest.slice(0, end).split('\r\n')
    const headers: Record<string, string> = {}
    for (const line of lines) {
      const [name = '', ...value] = line.split(': ')
      headers[name.toLowerCase()] = value.join(': ')
    }
    const bodyEnd = end + 4 + Number(headers['content-length'] ?? 0)
    if (rest.length < bodyEnd) return answers
    const text = rest.slice(end + 4, bodyEnd)
    answers.push({ status: Number(statusLine.split(' ')[1]), headers, text })
    rest = rest.slice(bodyEnd)
  }
}

export interface OrderBytes {
  key?: string
  body?: string
  /** how the body is framed, and other header lines */
  lines?: string[]
  /** what comes after the headers, if not the body */
  payload?: string
}

/** The bytes of a valid, signed order, or nearly. */
export function orderBytes({ key, body = JSON.stringify(ORDER), lines, payload }: OrderBytes = {}) {
  return [
    'POST /orders HTTP/1.1',
    'Host: 127.0.0.1',
    'Content-Type: application/json',
    `Idempotency-Key: ${key ?? newKey()}`,
    `X-Signature: ${sign(body)}`,
    ...(lines ?? [`Content-Length: ${Buffer.byteLength(body)}`]),
    '',
    payload ?? body,
  ].join('\r\n')
}
