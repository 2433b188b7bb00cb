/** The header `Content-Digest` (RFC 9530 §2). */
import { hash } from 'node:crypto'
import { type Dictionary, parseDictionary } from 'structured-headers'
import { problems } from '../http/problems.ts'

/** The algorithms that are checked, by their names in the registry of RFC 9530 §7.2, and in node:crypto. */
const DIGESTS = { 'sha-256': 'sha256', 'sha-512': 'sha512' }

/**
 * Checks that each digest in the header with a checked algorithm is that of the body; ignores the others.
 *
 * @param header the value of `Content-Digest`, a dictionary of byte sequences
 * @param body the exact bytes
 * @throws {Problem} `signature-invalid`, if one is not, or there is none
 */
export function checkContentDigest(header: string, body: Buffer): void {
  // The usual header is compared as text. See docs/performance.md.
  if (header === `sha-256=:${hash('sha256', body, 'base64')}:`) return
  const digests = parse(header)
  let isChecked = false
  for (const [name, algorithm] of Object.entries(DIGESTS)) {
    const member = digests.get(name)
    if (member === undefined) continue
    const [digest] = member
    const isRight =
      digest instanceof ArrayBuffer && Buffer.from(digest).equals(hash(algorithm, body, 'buffer'))
    if (!isRight) {
      throw problems.signatureInvalid(
        `Content-Digest: ${name} must be the digest of the exact body.`,
      )
    }
    isChecked = true
  }
  if (!isChecked) throw problems.signatureInvalid(RULE)
}

const RULE =
  'Content-Digest must be sha-256=:<base64>: or sha-512=:<base64>:, the digest of the exact body.'

/** @throws {Problem} `signature-invalid` */
function parse(header: string): Dictionary {
  try {
    return parseDictionary(header)
  } catch {
    throw problems.signatureInvalid(RULE)
  }
}
