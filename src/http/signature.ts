import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto'
import { fastifyPlugin } from 'fastify-plugin'
import { Problem } from './problem.ts'

const HEX_SHA256 = /^[0-9a-f]{64}$/i

/** RFC 9110 §11.6.1 asks a 401 to name the scheme; ours is not registered, so it names itself. */
const CHALLENGE = { 'www-authenticate': 'HMAC-SHA256 header="X-Signature"' }

/**
 * Lets only requests pass whose `X-Signature` is the HMAC-SHA256 (RFC 2104) of the exact bytes of
 * the body, keyed with the shared secret.
 */
export const signature = fastifyPlugin(async (app, { secret }: { secret: string }) => {
  // Made once: preparing the key costs several times as much as hashing a small body.
  const key = createSecretKey(Buffer.from(secret, 'utf8'))

  app.addHook('preHandler', async (request) => {
    const given = request.headers['x-signature']
    if (given === undefined) {
      throw new Problem('signature-missing', 'X-Signature is required.', { headers: CHALLENGE })
    }
    if (!isSignatureOf(key, request.rawBody, String(given))) {
      throw new Problem(
        'signature-invalid',
        'X-Signature must be the HMAC-SHA256 of the exact body bytes, as 64 hex digits.',
        { headers: CHALLENGE },
      )
    }
  })
})

/** Compares in constant time, so that the answer's delay tells nothing about the right signature. */
function isSignatureOf(key: KeyObject, body: Buffer, given: string): boolean {
  if (!HEX_SHA256.test(given)) return false
  const expected = createHmac('sha256', key).update(body).digest()
  return timingSafeEqual(expected, Buffer.from(given, 'hex'))
}
