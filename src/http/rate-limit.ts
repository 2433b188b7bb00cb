import { fastifyPlugin } from 'fastify-plugin'
import type { RedisConnection } from '../storage/redis.ts'
import { createLimiter, limitExceeded } from './limiter.ts'

/**
 * Allows each client a number of requests in a fixed window; a client is its IPv4 address or its
 * IPv6 /64 network. Counted in Redis for all instances together; in this process where there is no
 * Redis or while it does not answer.
 *
 * @param options `windowMs`: the length of the window in ms
 */
export const rateLimit = fastifyPlugin(
  async (app, options: { max: number; windowMs: number; redis: RedisConnection | undefined }) => {
    const { max, windowMs: timeWindow, redis } = options
    const local = await createLimiter(app, { max, timeWindow })
    const shared =
      redis &&
      (await createLimiter(app, {
        max,
        timeWindow,
        redis: redis.client,
        nameSpace: 'ratelimit:',
      }))

    app.addHook('preHandler', async (request, reply) => {
      const count =
        redis && shared
          ? await redis.ask(() => shared(request)).catch(() => local(request))
          : await local(request)
      if (count.isAllowed) return
      reply.headers({
        'x-ratelimit-limit': count.max,
        'x-ratelimit-remaining': count.remaining,
        'x-ratelimit-reset': count.ttlInSeconds,
      })
      if (!count.isExceeded) return
      const rule = `At most ${max} requests are allowed in ${timeWindow / 1000} s`
      throw limitExceeded(rule, count.ttlInSeconds)
    })
  },
)
