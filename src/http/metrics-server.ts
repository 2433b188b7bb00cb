import { fastify, LogController } from 'fastify'
import type { Logger } from 'pino'
import { errorHandler } from './error-handler.ts'
import { methodNotAllowed } from './method-not-allowed.ts'
import { metricsRoute, type ReadableMetrics } from './metrics-route.ts'

/**
 * Serves `GET /metrics`, and nothing else, on a port of its own.
 *
 * @returns what ends it, once it listens
 * @throws what `listen` of a server does
 */
export async function serveMetrics(
  metrics: ReadableMetrics,
  at: { host: string; port: number },
  logger: Logger,
): Promise<() => Promise<void>> {
  const app = fastify({
    loggerInstance: logger,
    logController: new LogController({ disableRequestLogging: true }),
  })
  await app.register(errorHandler)
  await app.register(methodNotAllowed)
  await app.register(metricsRoute, { metrics })
  app.refuseOtherMethods()
  const listenTextResolver = (address: string) => `metrics are served at ${address}/metrics`
  await app.listen({ ...at, listenTextResolver })
  return () => app.close()
}
