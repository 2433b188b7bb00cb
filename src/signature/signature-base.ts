/** The signature base (RFC 9421 §2): the text that a client signs. */
import { problems } from '../http/problems.ts'
import type { SignatureInput } from './signature-input.ts'

/** The parts of a request that a signature can cover, as they were sent. */
export interface SignedMessage {
  method: string
  /** the target of the request line: path and query */
  target: string
  /** the value of `@authority`: host and port, in lower case, without the default port */
  authority: string
  /** names and values in turn, as in `IncomingMessage.rawHeaders` */
  rawHeaders: string[]
  body: Buffer
}

/** How a derived component gets its value (RFC 9421 §2.2). */
const DERIVED_COMPONENTS: Record<string, (message: SignedMessage) => string> = {
  '@method': ({ method }) => method,
  '@authority': ({ authority }) => authority,
  '@path': ({ target }) => readPath(target),
  '@query': ({ target }) => readQuery(target),
}

/** Other characters cannot be in a signature base (RFC 9421 §2.5). */
const ASCII = /^[\t\x20-\x7e]*$/

/** Normalises the value of `Host` to that of `@authority` (RFC 9421 §2.2.3). */
export const parseAuthority = (host: string) => host.toLowerCase().replace(/:(80|443)$/, '')

/** Whether the target has a query, which a signature must then cover. */
export const hasQuery = ({ target }: Pick<SignedMessage, 'target'>) => target.includes('?')

/** The headers of a message, by their names in lower case. */
export type MessageHeaders = Map<string, string>

/**
 * Builds the signature base of a message.
 *
 * @param headers those of the message, from `joinHeaders`
 * @throws {Problem} `signature-invalid`, if the message does not have a covered component
 */
export function buildSignatureBase(
  message: SignedMessage,
  headers: MessageHeaders,
  { components, serialized }: Pick<SignatureInput, 'components' | 'serialized'>,
): string {
  let base = ''
  for (const name of components) base += `"${name}": ${readComponent(message, headers, name)}\n`
  return `${base}"@signature-params": ${serialized}`
}

/** @throws {Problem} `signature-invalid` */
function readComponent(message: SignedMessage, headers: MessageHeaders, name: string): string {
  const value = name.startsWith('@') ? DERIVED_COMPONENTS[name]?.(message) : headers.get(name)
  if (value === undefined) {
    throw problems.signatureInvalid(
      name.startsWith('@')
        ? `Signature-Input: the component "${name}" is not supported; use ${Object.keys(DERIVED_COMPONENTS).join(', ')}.`
        : `Signature-Input covers "${name}", but the request has no such header.`,
    )
  }
  if (ASCII.test(value)) return value
  throw problems.signatureInvalid(`Signature-Input covers "${name}", whose value must be ASCII.`)
}

/**
 * Reads all headers; several lines of one name are joined (RFC 9421 §2.1). (`IncomingMessage.headers` has only the
 * first line of some headers. To look for each of hundreds of components in thousands of lines would let one small
 * request take 50 ms.)
 */
export function joinHeaders({ rawHeaders }: SignedMessage): MessageHeaders {
  const headers: MessageHeaders = new Map()
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase()
    const value = rawHeaders[i + 1] as string
    const before = headers.get(name)
    headers.set(name, before === undefined ? value : `${before}, ${value}`)
  }
  return headers
}

/** What precedes the path in a target that is a whole URL (RFC 9112 §3.2.2). */
const ORIGIN = /^https?:\/\/[^/?]*/i

/** The path of a target as it was sent, not normalised. */
function readPath(target: string): string {
  const end = target.indexOf('?')
  const path = end === -1 ? target : target.slice(0, end)
  return path.startsWith('/') ? path : path.replace(ORIGIN, '') || '/'
}

/** The query of a target with its question mark, which is there even without a query (RFC 9421 §2.2.7). */
function readQuery(target: string): string {
  const start = target.indexOf('?')
  return start === -1 ? '?' : target.slice(start)
}
