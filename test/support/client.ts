import { createHmac, randomUUID } from 'node:crypto'
import { request } from 'node:http'

export const SECRET = 'super-secret-key'
export const ORDER = { user_id: 'user-1', item: 'book', amount: 500 }

/** An answer as it came over the wire. */
export interface Reply {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
  // biome-ignore lint/suspicious/noExplicitAny: each test knows what it expects
  json: any
}

export interface Send {
  method?: string
  path?: string
  /** an object is sent as JSON; bytes and text as they are */
  body?: unknown
  /** `null`: no such header; several: sent as often */
  key?: string | string[] | null
  signature?: string | null
  secret?: string
  headers?: Record<string, string | string[]>
}

export const newKey = () => `key-${randomUUID()}`

export function sign(bytes: string | Buffer, secret = SECRET): string {
  return createHmac('sha256', secret).update(bytes).digest('hex')
}

/** Sends one request on a connection of its own; by default a valid, signed new order. */
export function send(port: number, options: Send = {}): Promise<Reply> {
  const { method = 'POST', path = '/orders', body = ORDER, secret = SECRET } = options
  const { key = newKey(), headers = {} } = options
  const bytes =
    typeof body === 'string' || Buffer.isBuffer(body)
      ? Buffer.from(body)
      : Buffer.from(JSON.stringify(body))
  const { signature = sign(bytes, secret) } = options
  return new Promise((resolve, reject) => {
    const outgoing = request({
      host: '127.0.0.1',
      port,
      method,
      path,
      agent: false,
      headers: {
        ...(method !== 'GET' && {
          'content-type': 'application/json',
          'content-length': bytes.length,
        }),
        ...(key !== null && { 'idempotency-key': key }),
        ...(signature !== null && { 'x-signature': signature }),
        ...headers,
      },
    })
    outgoing.on('error', reject)
    outgoing.on('response', (response) => {
      const chunks: Buffer[] = []
      response.on('error', reject)
      response.on('data', (chunk) => chunks.push(chunk))
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString()
        const isJson = /json/.test(response.headers['content-type'] ?? '')
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text,
          json: isJson ? JSON.parse(text) : undefined,
        })
      })
    })
    outgoing.end(method === 'GET' ? undefined : bytes)
  })
}

/** The same, many times at once. */
export function sendAll(count: number, one: (index: number) => Promise<Reply>): Promise<Reply[]> {
  return Promise.all(Array.from({ length: count }, (_, index) => one(index)))
}
