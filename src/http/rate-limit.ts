import type { FastifyInstance } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import type { CountHit } from '../rate-limit/hits.ts'
import { createLimiter, limitExceeded } from './limiter.ts'

export interface RateLimitOptions {
  max: number
  /** the length of the window in ms */
  windowMs: number
  /** counts for all instances together; without it, or when it fails, this process counts alone */
  countHit: CountHit | undefined
  /** told of each request beyond the limit */
  onExceeded: () => void
}

/**
 * Allows each client a number of requests in a fixed window; a client is its IPv4 address or its
 * IPv6 /64 network.
 */
export const rateLimit = fastifyPlugin(async (app: FastifyInstance, options: RateLimitOptions) => {
  const { max, windowMs: timeWindow, countHit, onExceeded } = options
  const local = await createLimiter(app, { max, timeWindow })
  const shared = countHit && (await createLimiter(app, { max, timeWindow, countHit }))

  app.addHook('preHandler', async function limit(request, reply) {
    const count = shared ? await shared(request).catch(() => local(request)) : await local(request)
    if (count.isAllowed) return
    reply.headers({
      'x-ratelimit-limit': count.max,
      'x-ratelimit-remaining': count.remaining,
      'x-ratelimit-reset': count.ttlInSeconds,
    })
    if (!count.isExceeded) return
    onExceeded()
    const rule = `At most ${max} requests are allowed in ${timeWindow / 1000} s`
    throw limitExceeded(rule, count.ttlInSeconds)
  })
})
