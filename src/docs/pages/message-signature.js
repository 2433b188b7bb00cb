/** Signs requests with a private key of a client: HTTP message signatures (RFC 9421). */

/**
 * A key of a client (RFC 7517), with the id by which the service finds it.
 * @typedef {JsonWebKey & { kid: string }} PrivateKey
 */
/**
 * A request as it will be sent.
 * @typedef {{ method: string, url: URL, headers: Record<string, string>, body: string }} Message
 */

/** How WebCrypto imports a key and signs with it, by the type of the key. */
const ALGORITHMS = {
  oct: { forKey: { name: 'HMAC', hash: 'SHA-256' }, forSignature: { name: 'HMAC' } },
  OKP: { forKey: { name: 'Ed25519' }, forSignature: { name: 'Ed25519' } },
  EC: {
    forKey: { name: 'ECDSA', namedCurve: 'P-256' },
    forSignature: { name: 'ECDSA', hash: 'SHA-256' },
  },
}

/**
 * Returns a function that signs a request and returns the headers to add to it.
 *
 * @param {string} json of a private key
 * @throws {Error} whose message says what is wrong with the key
 */
export async function importPrivateKey(json) {
  const jwk = parseKey(json)
  const { forKey, forSignature } = ALGORITHMS[/** @type {keyof typeof ALGORITHMS} */ (jwk.kty)]
  const key = await crypto.subtle.importKey('jwk', jwk, forKey, false, ['sign']).catch((error) => {
    throw new Error(`This browser cannot import the key: ${error.message}`)
  })

  return async (/** @type {Message} */ message) => {
    const digest = await createDigest(message)
    const components = listComponents(message, digest)
    const names = components.map(([name]) => `"${name}"`).join(' ')
    const created = Math.floor(Date.now() / 1000)
    const parameters = `(${names});created=${created};keyid="${jwk.kid}"`
    const lines = [...components, ['@signature-params', parameters]]
    const base = lines.map(([name, value]) => `"${name}": ${value}`).join('\n')
    const signature = await crypto.subtle.sign(forSignature, key, new TextEncoder().encode(base))
    return {
      ...digest,
      'Signature-Input': `sig1=${parameters}`,
      Signature: `sig1=:${encodeBase64(signature)}:`,
    }
  }
}

/**
 * @param {string} json
 * @returns {PrivateKey}
 */
function parseKey(json) {
  let jwk
  try {
    jwk = JSON.parse(json)
  } catch {
    throw new Error('The key is not JSON.')
  }
  if (!jwk.kid) throw new Error('The key has no kid, by which the service finds it.')
  if (!Object.hasOwn(ALGORITHMS, jwk.kty))
    throw new Error('The kty of the key is not oct, OKP or EC.')
  if (!('d' in jwk || 'k' in jwk)) throw new Error('The key is not private: it has no d.')
  return jwk
}

/**
 * Returns `Content-Digest` (RFC 9530), if the request has a body.
 *
 * @param {Message} message
 * @returns {Promise<Record<string, string>>}
 */
async function createDigest({ method, body }) {
  if (method === 'GET') return {}
  const hash = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(body))
  return { 'Content-Digest': `sha-256=:${encodeBase64(hash)}:` }
}

/**
 * Returns what a signature must cover, as names and values.
 *
 * @param {Message} message
 * @param {Record<string, string>} digest
 */
function listComponents({ method, url, headers }, digest) {
  const all = new Headers({ ...headers, ...digest })
  const fields = method === 'GET' ? [] : ['content-digest', 'content-type', 'idempotency-key']
  return [
    ['@method', method],
    ['@authority', url.host],
    ['@path', url.pathname],
    ...(url.search ? [['@query', url.search]] : []),
    ...fields.map((name) => [name, all.get(name) ?? '']),
  ]
}

/** @param {ArrayBuffer} bytes */
const encodeBase64 = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes)))
