/** A client of the service that signs its requests. */
import { createHmac, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { type Agent, type ClientRequest, type IncomingMessage, request } from 'node:http'

export const SECRET = 'super-secret-key'
export const ORDER = { user_id: 'user-1', item: 'book', amount: 500 }

/** A response as it was received. */
export interface Reply {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
  // biome-ignore lint/suspicious/noExplicitAny: each test expects another document
  json: any
}

export interface Send {
  method?: string
  path?: string
  /** an object is sent as JSON; bytes and text as they are */
  body?: unknown
  /** `null`: no such header; several: a header line each */
  key?: string | string[] | null
  signature?: string | null
  secret?: string
  headers?: Record<string, string | string[]>
  /** keeps the connection for further requests */
  agent?: Agent
}

export const newKey = () => `key-${randomUUID()}`

export function sign(bytes: string | Buffer, secret = SECRET): string {
  return createHmac('sha256', secret).update(bytes).digest('hex')
}

/** Sends one request, by default a valid, signed new order on a connection of its own. */
export function open(port: number, options: Send = {}): ClientRequest {
  const { method = 'POST', path = '/orders', body = ORDER, secret = SECRET } = options
  const { key = newKey(), headers = {}, agent = false } = options
  const isRaw = typeof body === 'string' || Buffer.isBuffer(body)
  const bytes = Buffer.from(isRaw ? body : JSON.stringify(body))
  const { signature = sign(bytes, secret) } = options
  const outgoing = request({
    host: '127.0.0.1',
    port,
    method,
    path,
    agent,
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
  outgoing.end(method === 'GET' ? undefined : bytes)
  return outgoing
}

/** Sends one request and reads its response to the end. */
export async function send(port: number, options: Send = {}): Promise<Reply> {
  const [response] = (await once(open(port, options), 'response')) as [IncomingMessage]
  const text = Buffer.concat(await response.toArray()).toString()
  const isJson = /json/.test(response.headers['content-type'] ?? '')
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    text,
    json: isJson ? JSON.parse(text) : undefined,
  }
}

/** Reads a page that needs no key and no signature. */
export function get(port: number, path: string, accept?: string): Promise<Reply> {
  const headers = accept === undefined ? {} : { accept }
  return send(port, { method: 'GET', path, key: null, signature: null, headers })
}

/** Sends many requests at once. */
export function sendAll(count: number, one: (index: number) => Promise<Reply>): Promise<Reply[]> {
  return Promise.all(Array.from({ length: count }, (_, index) => one(index)))
}
