import type { FastifyPluginAsync } from 'fastify'
import type { RouteReference } from './open-api.ts'

/** Prometheus's text format. */
const MEDIA_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

const REFERENCE: RouteReference = {
  operationId: 'readMetrics',
  tags: ['Operation'],
  summary: 'What the service has counted, for Prometheus',
  response: {
    200: {
      description: 'Metrics in the text format of Prometheus.',
      content: {
        'text/plain': { schema: { type: 'string' }, example: 'order_once_rate_limited_total 0' },
      },
    },
  },
}

export interface ReadableMetrics {
  /** The metrics in that format. */
  read(): Promise<string>
}

/** `GET /metrics`: of interest most of all under overload, and until the process has ended. */
export const metricsRoute: FastifyPluginAsync<{ metrics: ReadableMetrics }> = async (
  app,
  { metrics },
) => {
  const config = { alwaysAnswers: true, reference: REFERENCE }
  const options = { logLevel: 'warn', config } as const
  app.get('/metrics', options, async (_request, reply) => {
    const text = await metrics.read()
    return reply.header('cache-control', 'no-store').type(MEDIA_TYPE).send(text)
  })
}
