/** Health checks for load balancers and supervisors: unsigned, and not counted by the rate limit. */
import type { FastifySchema } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import type { StoreStates } from '../stores/health-check.ts'
import { describeProblems } from './problem-schemas.ts'

/** A probe every few seconds is not worth a log line; a failure of it is. */
const QUIET = { logLevel: 'warn' } as const

const describeState = (description: string, example: object) => ({
  description,
  content: { 'application/json': { schema: { type: 'object' }, example } },
})

const LIVE_SCHEMA: FastifySchema = {
  operationId: 'isLive',
  tags: ['Operation'],
  summary: 'Whether the process responds',
  response: { 200: describeState('It does.', { status: 'live' }) },
}

const READY_SCHEMA: FastifySchema = {
  operationId: 'isReady',
  tags: ['Operation'],
  summary: 'Whether it can create orders',
  response: {
    200: describeState('It can; `degraded` means without Redis.', {
      status: 'ready',
      postgres: 'up',
      redis: 'up',
    }),
    ...describeProblems(['overloaded', 'shutting-down']),
  },
}

/**
 * - `GET /health/live`: the process responds; if it does not, restart it.
 * - `GET /health/ready`: it can create orders; if not, send it none. Without Redis it can (`degraded`);
 *   without Postgres, during overload and shutdown it cannot: 503.
 */
export const health = fastifyPlugin(
  async (app) => {
    app.get(
      '/health/live',
      { ...QUIET, config: { isAlwaysServed: true }, schema: LIVE_SCHEMA },
      async (_request, reply) => {
        reply.header('cache-control', 'no-store')
        return { status: 'live' }
      },
    )

    app.get('/health/ready', { ...QUIET, schema: READY_SCHEMA }, async (_request, reply) => {
      const states = await app.checkStores()
      reply.header('cache-control', 'no-store').code(states.postgres === 'up' ? 200 : 503)
      return { status: summarize(states), ...states }
    })
  },
  { name: 'health', dependencies: ['store-check', 'shutdown'] },
)

function summarize({ postgres, redis }: StoreStates): 'ready' | 'degraded' | 'unavailable' {
  if (postgres === 'down') return 'unavailable'
  return redis === 'down' ? 'degraded' : 'ready'
}
