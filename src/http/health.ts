import type { FastifyPluginAsync } from 'fastify'
import type { CheckStores, StoreStates } from '../check-stores.ts'
import type { RouteReference } from './open-api.ts'
import { problemResponses } from './problem-responses.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** answered while the process is overloaded and while it shuts down, too */
    alwaysAnswers?: boolean
  }
}

/** A probe every few seconds is not worth a line in the log; a fault in answering it is. */
const QUIET = { logLevel: 'warn' } as const

const stateExample = (description: string, example: object) => ({
  description,
  content: { 'application/json': { schema: { type: 'object' }, example } },
})

const LIVE: RouteReference = {
  operationId: 'isLive',
  tags: ['Operation'],
  summary: 'Whether the process answers',
  response: { 200: stateExample('It does.', { status: 'live' }) },
}

const READY: RouteReference = {
  operationId: 'isReady',
  tags: ['Operation'],
  summary: 'Whether it can make orders',
  response: {
    200: stateExample('It can; `degraded` is without Redis.', {
      status: 'ready',
      postgres: 'up',
      redis: 'up',
    }),
    ...problemResponses(['overloaded', 'shutting-down']),
  },
}

/**
 * For whoever runs the service, unsigned and outside the rate limit:
 *
 * - `GET /health/live`: the process answers; if it does not, start it anew.
 * - `GET /health/ready`: it can make orders; if not, send it none. Without Redis it can (`degraded`);
 *   without Postgres, under overload and while it shuts down it cannot: 503.
 */
export const health: FastifyPluginAsync<{ checkStores: CheckStores }> = async (
  app,
  { checkStores },
) => {
  app.addHook('onRequest', (_request, reply, done) => {
    reply.header('cache-control', 'no-store')
    done()
  })

  const live = { ...QUIET, config: { alwaysAnswers: true, reference: LIVE } }
  app.get('/health/live', live, async () => ({
    status: 'live',
  }))

  app.get('/health/ready', { ...QUIET, config: { reference: READY } }, async (_request, reply) => {
    const stores = await checkStores()
    reply.code(stores.postgres === 'up' ? 200 : 503)
    return { status: statusOf(stores), ...stores }
  })
}

function statusOf({ postgres, redis }: StoreStates): 'ready' | 'degraded' | 'unavailable' {
  if (postgres === 'down') return 'unavailable'
  return redis === 'down' ? 'degraded' : 'ready'
}
