/** Limits how many requests a client may send, and how many wrong signatures. */
import fastifyRateLimit from '@fastify/rate-limit'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { problems } from '../http/problems.ts'
import { identifyClient } from './client.ts'
import { createCounterStore, type IncrementCounter } from './counter-store.ts'
import { createMemoryCounter, fallBackToMemory } from './memory-counter.ts'
import { createRedisCounter } from './redis-counter.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * Counts a request without a valid signature.
     *
     * @throws {Problem} `rate-limit-exceeded`, if its client has sent too many
     */
    countSignatureFailure(request: FastifyRequest): Promise<void>
  }
}

export interface RateLimitOptions {
  /** requests of a client in a window; `off`: no limit */
  max: number | 'off'
  /** wrong signatures of a client in a window */
  maxSignatureFailures: number
  /** the length of the window */
  windowMs: number
}

/** The counters of wrong signatures, kept in this process: a flood of them must not cost Redis a call. */
const FAILURES_PREFIX = 'signature-failures:'

/**
 * Registers the counters and decorates the app with `countSignatureFailure`. Requests are counted in
 * Redis, for all processes; without Redis, or while it fails, in this process.
 */
export const rateLimitCounters = fastifyPlugin(
  async (app, { windowMs, maxSignatureFailures }: RateLimitOptions) => {
    const countFailure = createMemoryCounter(windowMs)
    const countRequest = createRequestCounter(app, windowMs)
    await app.register(fastifyRateLimit, {
      global: false,
      timeWindow: windowMs,
      store: createCounterStore((name, max) =>
        name.startsWith(FAILURES_PREFIX) ? countFailure(name) : countRequest(name, max),
      ),
    })

    const countSignatureFailure = app.createRateLimit({
      max: maxSignatureFailures,
      keyGenerator: (request) => FAILURES_PREFIX + identifyClient(request),
    })
    app.decorate('countSignatureFailure', async (request: FastifyRequest) => {
      const failures = await countSignatureFailure(request)
      if (!failures.isAllowed && failures.isExceeded) {
        throw problems.rateLimitExceeded('Too many wrong signatures', failures.ttlInSeconds)
      }
    })
  },
  { name: 'rate-limit-counters', dependencies: ['redis'] },
)

function createRequestCounter({ redis }: FastifyInstance, windowMs: number): IncrementCounter {
  if (redis === undefined) return createMemoryCounter(windowMs)
  const { client, limit, runCall } = redis
  return fallBackToMemory(createRedisCounter(client, { windowMs, limit, runCall }), windowMs)
}

/** Refuses requests of a client beyond its limit in a fixed window. */
export const rateLimit = fastifyPlugin(
  async (app, { max, windowMs }: RateLimitOptions) => {
    if (max === 'off') return
    /** The limit of a client: the same for all. */
    const findMax = (_client: string) => max
    app.addHook(
      'preHandler',
      app.rateLimit({
        max: (_request, client) => findMax(client),
        keyGenerator: identifyClient,
        onExceeded: () => app.metrics.countRateLimited(),
        errorResponseBuilder: (_request, { max, ttl }) =>
          problems.rateLimitExceeded(
            `At most ${max} requests are allowed in ${windowMs / 1000} s`,
            Math.ceil(ttl / 1000),
          ),
      }),
    )
  },
  { name: 'rate-limit', dependencies: ['metrics', 'rate-limit-counters', 'signature'] },
)
