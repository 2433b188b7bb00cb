/** The file of `CLIENTS_FILE`: the clients, and the keys with which they sign. */
import { readFile, stat } from 'node:fs/promises'
import { getErrorCode } from '../error-code.ts'
import { findRepeatedMembers } from '../http/repeated-members.ts'
import { requireRegularFile } from '../regular-file.ts'
import { StartError } from '../start-error.ts'
import {
  isKeyId,
  KEY_ID_RULE,
  KeyRuleError,
  parseJsonWebKey,
  type VerificationKey,
} from './json-web-key.ts'

/** Who a request comes from: the owner of idempotency keys, orders and a rate limit. */
export interface Client {
  readonly id: string
  /** how many requests it may send in a window; undefined: as many as `RATE_LIMIT_MAX` */
  readonly rateLimitMax: number | undefined
}

/** A key of a client. */
export interface ClientKey extends VerificationKey {
  client: Client
}

export interface Clients {
  byId: Map<string, Client>
  /** the keys by their `kid` */
  keys: Map<string, ClientKey>
}

/** The client of `X-Signature`. */
export const DEFAULT_CLIENT_ID = 'default'

const CLIENT_ID = /^[A-Za-z0-9._-]{1,64}$/
export const CLIENT_ID_RULE = '1 to 64 of the characters A-Z a-z 0-9 . _ -'

/** Whether a value is a well-formed client id, as `CLIENT_ID_RULE` says. */
export const isClientId = (id: unknown): id is string =>
  typeof id === 'string' && CLIENT_ID.test(id)

/** As for `RATE_LIMIT_MAX`. */
const MAX_RATE_LIMIT = 1_000_000_000

/**
 * Reads the text of the file.
 *
 * @throws {StartError} one line that names the file and the reason
 */
export async function readClientsFile(path: string): Promise<string> {
  try {
    requireRegularFile(await stat(path), `CLIENTS_FILE: ${path}`)
    return new TextDecoder('utf-8', { fatal: true }).decode(await readFile(path))
  } catch (error) {
    if (error instanceof StartError) throw error
    const code = getErrorCode(error)
    if (code === 'ERR_ENCODING_INVALID_ENCODED_DATA')
      throw new StartError(`CLIENTS_FILE: ${path} is not UTF-8`)
    throw new StartError(`CLIENTS_FILE: ${path} cannot be read: ${code}`)
  }
}

/**
 * Parses the text of the file.
 *
 * @throws {StartError} one line that names the first place that breaks a rule, such as
 * `clients[1].keys[0].x`, and the rule; never a value
 */
export function parseClients(text: string): Clients {
  const clients: Clients = { byId: new Map(), keys: new Map() }
  const file = readObject('the file', parseJson(text), ['clients'])
  for (const [i, entry] of readArray('clients', file.clients).entries()) {
    const place = `clients[${i}]`
    const { id, rate_limit_max: rateLimitMax, keys } = readObject(place, entry, CLIENT_MEMBERS)
    if (!isClientId(id)) throw brokenRule(`${place}.id`, `must be ${CLIENT_ID_RULE}`)
    if (clients.byId.has(id)) throw brokenRule(`${place}.id`, 'must be different from the others')
    if (rateLimitMax !== undefined && !isRateLimit(rateLimitMax)) {
      throw brokenRule(`${place}.rate_limit_max`, `must be an integer from 1 to ${MAX_RATE_LIMIT}`)
    }
    const client: Client = { id, rateLimitMax }
    clients.byId.set(id, client)
    for (const [j, key] of readArray(`${place}.keys`, keys).entries()) {
      addKey(clients, client, `${place}.keys[${j}]`, readObject(`${place}.keys[${j}]`, key))
    }
  }
  return clients
}

const CLIENT_MEMBERS = ['id', 'rate_limit_max', 'keys']

/** @throws {StartError} */
function addKey({ keys }: Clients, client: Client, place: string, jwk: Record<string, unknown>) {
  const { kid } = jwk
  if (!isKeyId(kid)) throw brokenRule(`${place}.kid`, KEY_ID_RULE)
  if (keys.has(kid)) throw brokenRule(`${place}.kid`, 'must be different from the others')
  try {
    keys.set(kid, { ...parseJsonWebKey(jwk), client })
  } catch (error) {
    if (!(error instanceof KeyRuleError)) throw error
    throw brokenRule(error.member ? `${place}.${error.member}` : place, error.message)
  }
}

const brokenRule = (place: string, rule: string) => new StartError(`CLIENTS_FILE: ${place} ${rule}`)

const isRateLimit = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= MAX_RATE_LIMIT

/** @throws {StartError} */
function parseJson(text: string): unknown {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw brokenRule('the file', 'must be JSON')
  }
  // `JSON.parse` keeps only the last one, so a client could be lost without a message.
  const [repeated] = findRepeatedMembers(text, 1)
  if (repeated !== undefined) {
    throw brokenRule('the file', `must not have ${JSON.stringify(repeated)} twice in one object`)
  }
  return value
}

/** @throws {StartError} if it is no object, or has other members than these */
function readObject(place: string, value: unknown, members?: string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw brokenRule(place, 'must be an object')
  }
  const unknown = members && Object.keys(value).find((name) => !members.includes(name))
  if (unknown !== undefined) {
    throw brokenRule(place, `must have no member but ${members?.join(', ')}`)
  }
  return value as Record<string, unknown>
}

/** @throws {StartError} */
function readArray(place: string, value: unknown): unknown[] {
  if (Array.isArray(value)) return value
  throw brokenRule(place, 'must be an array')
}
