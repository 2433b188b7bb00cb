/** The command `keygen`: makes a key for a client. */
import { createPrivateKey, generateKeyPairSync, randomBytes } from 'node:crypto'
import { CLIENT_ID_RULE, isClientId } from './clients-file.ts'

const USAGE = `usage: order-once keygen <client id>

Makes an Ed25519 key for a client. Prints two lines on stdout: the private key, as a JSON Web Key, which is not
stored anywhere; and the entry of the client for CLIENTS_FILE, with the public key.

A client id is ${CLIENT_ID_RULE}.`

/** @returns the exit code: 0, or 2 after wrong usage */
export function runKeygenCommand([id, ...more]: string[]): number {
  if (id === '--help' || id === '-h') {
    console.log(USAGE)
    return 0
  }
  if (!isClientId(id) || more.length > 0) {
    console.error(USAGE)
    return 2
  }
  const { privateKey, entry } = generateClientKey(id)
  console.error(`The private key for ${id}. It is not stored and not printed again:`)
  console.log(JSON.stringify(privateKey))
  console.error('The entry for CLIENTS_FILE, among "clients":')
  console.log(JSON.stringify(entry))
  return 0
}

/**
 * Generates an Ed25519 key.
 *
 * @returns the private JSON Web Key (RFC 8037), and the entry of the client for the file of clients
 */
export function generateClientKey(id: string) {
  // Not as KeyObjects: their export as JWK can hang in Node 20.
  const { privateKey } = generateKeyPairSync('ed25519', {
    publicKeyEncoding: { format: 'der', type: 'spki' },
    privateKeyEncoding: { format: 'der', type: 'pkcs8' },
  })
  const key = createPrivateKey({ key: privateKey, format: 'der', type: 'pkcs8' })
  const kid = `${id}-${randomBytes(KEY_ID_BYTES).toString('hex')}`
  const jwk = { kid, ...key.export({ format: 'jwk' }) }
  const { d: _privatePart, ...publicJwk } = jwk
  return { privateKey: jwk, entry: { id, keys: [publicJwk] } }
}

/** Enough that no client gets the same `kid` twice. */
const KEY_ID_BYTES = 4
