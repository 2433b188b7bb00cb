/** Scheme 2: verifies the HTTP message signature of a request (RFC 9421). */
import { parseItem } from 'structured-headers'
import type { VerificationKey } from '../clients/json-web-key.ts'
import { SIGNATURE_ALGORITHMS } from '../clients/signature-algorithms.ts'
import { problems } from '../http/problems.ts'
import { checkContentDigest } from './content-digest.ts'
import {
  buildSignatureBase,
  hasQuery,
  joinHeaders,
  type MessageHeaders,
  type SignedMessage,
} from './signature-base.ts'
import { parseSignatureInput, type SignatureInput } from './signature-input.ts'

export interface VerificationOptions<Key extends VerificationKey> {
  /** @returns undefined if there is no such key */
  findKey: (keyid: string) => Key | undefined
  /** how far `created` may be in the past or in the future */
  maxAgeSeconds: number
  /** the clock, in ms since 1970 */
  now?: () => number
}

const ALWAYS = ['@method', '@authority', '@path']
const IN_POST = ['content-digest', 'content-type', 'idempotency-key']
const REQUIRED_COMPONENTS = {
  read: ALWAYS,
  readWithQuery: [...ALWAYS, '@query'],
  post: [...ALWAYS, ...IN_POST],
  postWithQuery: [...ALWAYS, '@query', ...IN_POST],
}

/** Lists the components that a signature of this message must cover. */
export function listRequiredComponents(
  message: Pick<SignedMessage, 'method' | 'target'>,
): string[] {
  const { read, readWithQuery, post, postWithQuery } = REQUIRED_COMPONENTS
  if (message.method === 'POST') return hasQuery(message) ? postWithQuery : post
  return hasQuery(message) ? readWithQuery : read
}

/**
 * Verifies the one signature of a message: its components, its time, the signature itself, and then the digest of
 * the body.
 *
 * @returns the key that made it
 * @throws {Problem} `signature-missing`, `signature-invalid` or `signature-expired`. An unknown key and a wrong
 * signature have the same words
 */
export function verifyMessageSignature<Key extends VerificationKey>(
  message: SignedMessage,
  { findKey, maxAgeSeconds, now = Date.now }: VerificationOptions<Key>,
): Key {
  const headers = joinHeaders(message)
  const { input, signature } = readSignature(headers)
  checkCoverage(input, message)
  checkTime(input, Math.floor(now() / 1000), maxAgeSeconds)
  const base = buildSignatureBase(message, headers, input)
  const key = findKey(input.keyid)
  const isValid =
    key !== undefined &&
    (input.algorithm === undefined || input.algorithm === key.algorithm) &&
    SIGNATURE_ALGORITHMS[key.algorithm].verify(key.key, Buffer.from(base), signature)
  if (!isValid) throw problems.signatureInvalid('No key with this keyid verifies the signature.')
  // After the signature: a long Content-Digest takes 30 ms to parse, which an unknown client must not cause.
  if (input.components.includes('content-digest')) {
    checkContentDigest(headers.get('content-digest') ?? '', message.body)
  }
  return key
}

/** Reads the two headers. @throws {Problem} unless both have one signature, with the same label */
function readSignature(headers: MessageHeaders): {
  input: SignatureInput
  signature: Buffer
} {
  const inputHeader = headers.get('signature-input')
  const signatureHeader = headers.get('signature')
  if (inputHeader === undefined || signatureHeader === undefined) {
    throw problems.signatureMissing('Signature-Input and Signature are required, both of them.')
  }
  const input = parseSignatureInput(inputHeader)
  return { input, signature: parseSignature(signatureHeader, input.label) }
}

/** Parses a dictionary of one byte sequence (RFC 9421 §4.2). @throws {Problem} if it is another value */
function parseSignature(header: string, label: string): Buffer {
  const start = `${label}=:`
  try {
    if (header.startsWith(start)) {
      const [bytes] = parseItem(header.slice(start.length - 1))
      if (bytes instanceof ArrayBuffer) return Buffer.from(bytes)
    }
  } catch {
    // It is malformed, or there are several.
  }
  throw problems.signatureInvalid(
    'Signature must have exactly one signature, label=:<base64>:, with the label of Signature-Input.',
  )
}

/** @throws {Problem} if a component is not covered that must be */
function checkCoverage({ components }: SignatureInput, message: SignedMessage): void {
  const missing = listRequiredComponents(message).filter((name) => !components.includes(name))
  if (missing.length === 0) return
  const names = missing.map((name) => `"${name}"`).join(', ')
  throw problems.signatureInvalid(`Signature-Input must cover ${names}.`)
}

/** @throws {Problem} `signature-expired` if `created` or `expires` is out of range */
function checkTime(
  { created, expires }: SignatureInput,
  nowSeconds: number,
  maxAgeSeconds: number,
): void {
  const age = nowSeconds - created
  if (Math.abs(age) > maxAgeSeconds) {
    const distance = age > 0 ? `${age} s in the past` : `${-age} s in the future`
    throw problems.signatureExpired(
      `Signature-Input: created is ${distance}, and at most ${maxAgeSeconds} s are allowed`,
      nowSeconds,
    )
  }
  if (expires < nowSeconds) {
    throw problems.signatureExpired('Signature-Input: expires is in the past', nowSeconds)
  }
}
