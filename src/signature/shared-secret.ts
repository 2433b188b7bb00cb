/** Scheme 1: `X-Signature`, made with a secret that all its clients share. */
import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto'
import { problems } from '../http/problems.ts'

const HEX_SHA256 = /^[0-9a-f]{64}$/i

const RULE =
  'X-Signature must be the HMAC-SHA256 of the exact body bytes (for a GET, of the path with its query), as 64 hex digits'

/** Forms of a signature that other services use: clients that were made for them send these. */
const OTHER_FORMS: [form: RegExp, name: string][] = [
  [/^sha256=/i, 'begins with sha256='],
  [/^(t=\d+,)?v\d+=/i, 'has the form v1=<signature>'],
  [/^[A-Za-z0-9+/_-]{43}=?$/, 'is in base64'],
]

/**
 * Creates the check of `X-Signature`: the HMAC-SHA256 (RFC 2104) of the signed bytes, keyed with one of the
 * secrets, as 64 hex digits.
 *
 * @returns a function that throws the `Problem` `signature-missing` or `signature-invalid`
 */
export function createSharedSecretCheck(
  secrets: string[],
): (header: string | string[] | undefined, signed: Buffer | string) => void {
  // Each key is made once. See docs/performance.md.
  const keys = secrets.map((secret) => createSecretKey(secret, 'utf8'))

  return (header, signed) => {
    if (header === undefined) throw problems.signatureMissing('X-Signature is required.')
    if (!isSignedByAny(keys, signed, header)) throw problems.signatureInvalid(explain(header))
  }
}

/**
 * Compares in constant time, with every key: the delay of the response reveals neither the right
 * signature nor the key that made it.
 */
function isSignedByAny(keys: KeyObject[], signed: Buffer | string, given: unknown): boolean {
  if (typeof given !== 'string' || !HEX_SHA256.test(given)) return false
  const digits = Buffer.from(given.toLowerCase())
  let isSigned = false
  for (const key of keys) {
    // Hex digits: `digest()` would make a Buffer for the garbage collector. See docs/performance.md.
    const expected = Buffer.from(createHmac('sha256', key).update(signed).digest('hex'))
    isSigned = timingSafeEqual(expected, digits) || isSigned
  }
  return isSigned
}

function explain(header: string | string[]): string {
  const form = OTHER_FORMS.find(([form]) => form.test(`${header}`))
  return form ? `${RULE}; this one ${form[1]}.` : `${RULE}.`
}
