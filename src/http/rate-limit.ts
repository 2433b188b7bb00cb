import fastifyRateLimit, { type RateLimitPluginOptions } from '@fastify/rate-limit'
import type { FastifyInstance } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import type { RedisConnection } from '../storage/redis.ts'
import { Problem } from './problem.ts'

/** Clients counted at once in this process: about 2 MB, and more than one window of one instance sees. */
const LOCAL_CLIENTS = 10_000

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
    const local = await createLimiter(app, { max, timeWindow, cache: LOCAL_CLIENTS })
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
      const wait = Math.max(1, count.ttlInSeconds)
      throw new Problem(
        'rate-limit-exceeded',
        `At most ${max} requests are allowed in ${timeWindow / 1000} s; wait ${wait} s.`,
        { headers: { 'retry-after': String(wait) } },
      )
    })
  },
)

/** In a scope of its own: the plugin has one store, and decorates the scope it is registered in. */
async function createLimiter(app: FastifyInstance, options: RateLimitPluginOptions) {
  let limiter: ReturnType<FastifyInstance['createRateLimit']> | undefined
  await app.register(async (scope) => {
    await scope.register(fastifyRateLimit, { global: false, ...options })
    limiter = scope.createRateLimit()
  })
  if (limiter === undefined) throw new Error('the rate limiter was not made')
  return limiter
}
