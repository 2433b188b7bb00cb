/** Accepts only requests that a client has signed with the shared secret. */
import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { problems } from '../http/problems.ts'

const HEX_SHA256 = /^[0-9a-f]{64}$/i

/**
 * Refuses requests whose `X-Signature` is not the HMAC-SHA256 (RFC 2104) of the exact bytes of the body,
 * keyed with one of the shared secrets. A client that fails too often gets 429 for further failures; its
 * valid requests are not refused, since others may share its address.
 */
export const signature = fastifyPlugin(
  async (app, { secrets }: { secrets: string[] }) => {
    // Made once: a key made for each request costs nine times the signature.
    const keys = secrets.map((secret) => createSecretKey(secret, 'utf8'))

    app.addHook('preHandler', function verifySignature(request, _reply, done) {
      const isValid = isSignedByAny(keys, request.rawBody, request.headers['x-signature'])
      if (isValid) done()
      else refuse(request).catch(done)
    })

    /** @throws {Problem} always */
    async function refuse(request: FastifyRequest): Promise<never> {
      app.metrics.countSignatureFailure()
      await app.countSignatureFailure(request)
      throw request.headers['x-signature'] === undefined
        ? problems.signatureMissing()
        : problems.signatureInvalid()
    }
  },
  { name: 'signature', dependencies: ['raw-body', 'metrics', 'rate-limit-counters'] },
)

/**
 * Compares in constant time, with every key: the delay of the response reveals neither the right
 * signature nor the key that made it.
 */
function isSignedByAny(keys: KeyObject[], body: Buffer, given: unknown): boolean {
  if (typeof given !== 'string' || !HEX_SHA256.test(given)) return false
  const digest = Buffer.from(given, 'hex')
  let isSigned = false
  for (const key of keys) {
    const expected = createHmac('sha256', key).update(body).digest()
    isSigned = timingSafeEqual(expected, digest) || isSigned
  }
  return isSigned
}
