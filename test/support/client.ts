/** A client of the service that signs its requests. */
import { createHmac, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { type Agent, type ClientRequest, type IncomingMessage, request } from 'node:http'
import { type Signing, type SigningKey, signMessage } from './message-signature.ts'

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
  /** signs with an HTTP message signature instead of `X-Signature` */
  signingKey?: SigningKey
  /** how that signature differs from the usual one */
  signing?: Signing
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
  const hasBody = method !== 'GET' && method !== 'HEAD'
  const { signature = sign(hasBody ? bytes : path, secret), signingKey, signing } = options
  const all = {
    ...(hasBody && { 'content-type': 'application/json' }),
    ...(key !== null && hasBody && { 'idempotency-key': key }),
    ...(signature !== null && !signingKey && { 'x-signature': signature }),
    ...headers,
  }
  const signed =
    signingKey &&
    signMessage(
      signingKey,
      {
        ...{ method, path, authority: `127.0.0.1:${port}`, body: bytes },
        headers: Object.fromEntries(Object.entries(all).map(([name, value]) => [name, `${value}`])),
      },
      signing,
    )
  const outgoing = request({
    host: '127.0.0.1',
    port,
    method,
    path,
    agent,
    headers: { ...(hasBody && { 'content-length': bytes.length }), ...signed, ...all },
  })
  outgoing.end(hasBody ? bytes : undefined)
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
    json: isJson && text !== '' ? JSON.parse(text) : undefined,
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
