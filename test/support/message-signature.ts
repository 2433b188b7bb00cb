/**
 * Signs requests as a client does (RFC 9421, RFC 9530). It is written from the RFCs, and on purpose not with the
 * code of src/.
 */
import {
  createHash,
  createHmac,
  createPrivateKey,
  createSecretKey,
  generateKeyPairSync,
  type JsonWebKey,
  type KeyObject,
  randomBytes,
  sign,
} from 'node:crypto'

export type Algorithm = 'hmac-sha256' | 'ed25519' | 'ecdsa-p256-sha256'
export const ALGORITHMS: Algorithm[] = ['hmac-sha256', 'ed25519', 'ecdsa-p256-sha256']

/** A key of a client: it signs with the private half; the other half is in the file of clients. */
export interface SigningKey {
  kid: string
  algorithm: Algorithm
  secret: KeyObject
  /** as in the file of clients */
  jwk: JsonWebKey & { kid: string }
}

/** Makes a key. */
export function createKey(kid: string, algorithm: Algorithm = 'ed25519'): SigningKey {
  if (algorithm === 'hmac-sha256') {
    const bytes = randomBytes(32)
    const jwk = { kid, kty: 'oct', k: bytes.toString('base64url') }
    return { kid, algorithm, secret: createSecretKey(bytes), jwk }
  }
  const secret = createPrivateKey(algorithm === 'ed25519' ? generateEd25519() : generateP256())
  const { d: _, ...publicJwk } = secret.export({ format: 'jwk' })
  return { kid, algorithm, secret, jwk: { kid, ...publicJwk } }
}

// As PEM: the export of a generated KeyObject as JWK can hang in Node 20.
const publicKeyEncoding = { format: 'pem', type: 'spki' } as const
const privateKeyEncoding = { format: 'pem', type: 'pkcs8' } as const

function generateEd25519(): string {
  return generateKeyPairSync('ed25519', { publicKeyEncoding, privateKeyEncoding }).privateKey
}

function generateP256(): string {
  const options = { namedCurve: 'P-256', publicKeyEncoding, privateKeyEncoding }
  return generateKeyPairSync('ec', options).privateKey
}

/** A key for each algorithm. */
export const createKeys = (kid = 'key') =>
  ALGORITHMS.map((algorithm) => createKey(`${kid}-${algorithm}`, algorithm))

/** Signs the bytes of a signature base. */
export function signBase({ algorithm, secret }: SigningKey, base: string | Buffer): Buffer {
  const bytes = Buffer.from(base)
  if (algorithm === 'hmac-sha256') return createHmac('sha256', secret).update(bytes).digest()
  if (algorithm === 'ed25519') return sign(null, bytes, secret)
  return sign('sha256', bytes, { key: secret, dsaEncoding: 'ieee-p1363' })
}

export interface MessageToSign {
  method?: string
  path?: string
  authority: string
  /** of a POST; an object is sent as JSON */
  body?: unknown
  /** further headers; those that the signature needs are added */
  headers?: Record<string, string>
}

export interface Signing {
  /** replaces the components that a signature of such a request must cover */
  components?: string[]
  /** further components */
  more?: string[]
  /** replaces the parameters of the signature; a string that needs quotes has them */
  parameters?: Record<string, string | number>
  label?: string
}

/** The time of a signature that is made now. */
export const nowSeconds = () => Math.floor(Date.now() / 1000)

/** @returns the headers of the signed request, with those that were given */
export function signMessage(
  key: SigningKey,
  { method = 'POST', path = '/orders', authority, body = '', headers = {} }: MessageToSign,
  { components, more = [], parameters, label = 'sig1' }: Signing = {},
): Record<string, string> {
  const hasBody = method === 'POST'
  const isRaw = typeof body === 'string' || Buffer.isBuffer(body)
  const bytes = Buffer.from(isRaw ? body : JSON.stringify(body))
  const digest = createHash('sha256').update(bytes).digest('base64')
  const all: Record<string, string> = {
    ...(hasBody && { 'content-type': 'application/json', 'content-digest': `sha-256=:${digest}:` }),
    ...headers,
  }
  const covered = [
    ...(components ?? [
      ...['@method', '@authority', '@path'],
      ...(path.includes('?') ? ['@query'] : []),
      ...(hasBody ? ['content-digest', 'content-type', 'idempotency-key'] : []),
    ]),
    ...more,
  ]
  const queryAt = path.includes('?') ? path.indexOf('?') : path.length
  const derived: Record<string, string> = {
    '@method': method,
    '@authority': authority,
    '@path': path.slice(0, queryAt),
    '@query': path.slice(queryAt) || '?',
  }
  const names = covered.map((name) => `"${name}"`).join(' ')
  const given = Object.entries(parameters ?? { created: nowSeconds(), keyid: `"${key.kid}"` })
  const input = `(${names})${given.map(([name, value]) => `;${name}=${value}`).join('')}`
  const lines = covered.map((name) => `"${name}": ${derived[name] ?? all[name] ?? ''}`)
  const base = [...lines, `"@signature-params": ${input}`].join('\n')
  return {
    ...all,
    'signature-input': `${label}=${input}`,
    signature: `${label}=:${signBase(key, base).toString('base64')}:`,
  }
}
