import type { FastifyPluginAsync } from 'fastify'

/** Prometheus's text format. */
const MEDIA_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

export interface ReadableMetrics {
  /** The metrics in that format. */
  read(): Promise<string>
}

/** `GET /metrics`: of interest most of all under overload, and until the process has ended. */
export const metricsRoute: FastifyPluginAsync<{ metrics: ReadableMetrics }> = async (
  app,
  { metrics },
) => {
  const options = { logLevel: 'warn', config: { alwaysAnswers: true } } as const
  app.get('/metrics', options, async (_request, reply) => {
    const text = await metrics.read()
    return reply.header('cache-control', 'no-store').type(MEDIA_TYPE).send(text)
  })
}
