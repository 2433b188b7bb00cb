/** Health checks for load balancers and supervisors: unsigned, and not counted by the rate limit. */
import type { FastifySchema } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import type { StoreStates } from '../stores/health-check.ts'
import { describeProblems } from './problem-schemas.ts'

/** A probe every few seconds is not worth a log line; a failure of it is. */
const QUIET = { logLevel: 'warn' } as const

const LIVENESS = {
  title: 'Liveness',
  type: 'object',
  properties: { status: { type: 'string', enum: ['live'] } },
  required: ['status'],
}

const READINESS = {
  title: 'Readiness',
  type: 'object',
  properties: {
    status: { type: 'string', enum: ['ready', 'degraded', 'unavailable'] },
    postgres: { type: 'string', enum: ['up', 'down'] },
    redis: {
      type: 'string',
      enum: ['up', 'down', 'none'],
      description: 'none: the service runs without one',
    },
  },
  required: ['status', 'postgres', 'redis'],
}

const describeState = (description: string, schema: object, example: object) => ({
  description,
  content: { 'application/json': { schema, example } },
})

const UNAVAILABLE = describeState('Postgres is down.', READINESS, {
  status: 'unavailable',
  postgres: 'down',
  redis: 'up',
})

/** During overload and shutdown the response is a problem. */
const { 503: NOT_SERVED } = describeProblems(['overloaded', 'shutting-down'])

const LIVE_SCHEMA: FastifySchema = {
  operationId: 'isLive',
  tags: ['Operation'],
  summary: 'Whether the process responds',
  response: { 200: describeState('It does.', LIVENESS, { status: 'live' }) },
}

const READY_SCHEMA: FastifySchema = {
  operationId: 'isReady',
  tags: ['Operation'],
  summary: 'Whether it can create orders',
  response: {
    200: describeState('It can; `degraded` means without Redis.', READINESS, {
      status: 'ready',
      postgres: 'up',
      redis: 'up',
    }),
    503: {
      ...NOT_SERVED,
      description: `${UNAVAILABLE.description} ${NOT_SERVED?.description}`,
      content: { ...UNAVAILABLE.content, ...NOT_SERVED?.content },
    },
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
