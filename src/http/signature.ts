import { timingSafeEqual } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { createHmacSha256, type Hmac } from './hmac.ts'
import { createLimiter, limitExceeded } from './limiter.ts'
import { Problem } from './problem.ts'

const HEX_SHA256 = /^[0-9a-f]{64}$/i

/** RFC 9110 §11.6.1 asks a 401 to name the scheme; ours is not registered, so it names itself. */
const CHALLENGE = { 'www-authenticate': 'HMAC-SHA256 header="X-Signature"' }

/**
 * Lets only requests pass whose `X-Signature` is the HMAC-SHA256 (RFC 2104) of the exact bytes of
 * the body, keyed with one of the shared secrets. A client that fails too often is told to wait;
 * counted in this process, so that a flood costs no trip to Redis. Well-signed requests from its
 * address pass all the same: others may share it.
 *
 * @param options `maxFailures`: of a client in `windowMs`; `onFailure`: told of each
 */
export const signature = fastifyPlugin(
  async (
    app,
    options: { secrets: string[]; maxFailures: number; windowMs: number; onFailure: () => void },
  ) => {
    const keys = options.secrets.map(createHmacSha256)
    const { maxFailures: max, windowMs: timeWindow, onFailure } = options
    const countFailure = await createLimiter(app, { max, timeWindow })

    app.addHook('preHandler', function signature(request, _reply, done) {
      const isSigned = isSignedWithAny(keys, request.rawBody, request.headers['x-signature'])
      if (isSigned) done()
      else refuse(request).catch(done)
    })

    /** @throws {Problem} always */
    async function refuse(request: FastifyRequest): Promise<never> {
      onFailure()
      const failures = await countFailure(request)
      if (!failures.isAllowed && failures.isExceeded) {
        throw limitExceeded('Too many wrong signatures', failures.ttlInSeconds)
      }
      if (request.headers['x-signature'] === undefined) {
        throw new Problem('signature-missing', 'X-Signature is required.', { headers: CHALLENGE })
      }
      throw new Problem(
        'signature-invalid',
        'X-Signature must be the HMAC-SHA256 of the exact body bytes, as 64 hex digits.',
        { headers: CHALLENGE },
      )
    }
  },
)

/**
 * Compares in constant time, with every key: so the answer's delay tells nothing about the right
 * signature or the key that made it.
 */
function isSignedWithAny(keys: Hmac[], body: Buffer, given: unknown): boolean {
  if (typeof given !== 'string' || !HEX_SHA256.test(given)) return false
  const digits = Buffer.from(given.toLowerCase(), 'latin1')
  let isSigned = false
  for (const key of keys) {
    isSigned = timingSafeEqual(Buffer.from(key(body), 'latin1'), digits) || isSigned
  }
  return isSigned
}
