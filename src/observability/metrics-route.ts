/** `GET /metrics`, for Prometheus. */
import { fastifyPlugin } from 'fastify-plugin'

/** Prometheus's text format. */
const MEDIA_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

const SCHEMA = {
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

/** Served during overload and shutdown, when metrics matter most. */
export const metricsRoute = fastifyPlugin(
  async (app, { readMetrics }: { readMetrics: () => Promise<string> }) => {
    const options = { logLevel: 'warn', config: { isAlwaysServed: true }, schema: SCHEMA } as const
    app.get('/metrics', options, async (_request, reply) => {
      const text = await readMetrics()
      return reply.header('cache-control', 'no-store').type(MEDIA_TYPE).send(text)
    })
  },
  { name: 'metrics-route' },
)
