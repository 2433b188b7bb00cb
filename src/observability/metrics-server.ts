/** `GET /metrics` on a port of its own. */
import { fastify, LogController } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { errorHandler } from '../http/error-handler.ts'
import { type HostHeaderOptions, hostHeader } from '../http/host-header.ts'
import { listen } from '../http/listen.ts'
import { methodNotAllowed } from '../http/method-not-allowed.ts'
import { createServerOptions, type ServerLimits } from '../http/server.ts'
import { metricsRoute } from './metrics-route.ts'

export interface MetricsServerOptions extends ServerLimits, HostHeaderOptions {
  /** the address to listen on */
  host: string
  /** the name of the setting that has it */
  hostSetting: string
  port: number
  readMetrics: () => Promise<string>
}

/**
 * Serves the metrics, and nothing else, until the app closes.
 *
 * @throws {StartError} if the port cannot be listened on
 */
export const metricsServer = fastifyPlugin(
  async (app, options: MetricsServerOptions) => {
    const { host, hostSetting, port, readMetrics } = options
    const server = fastify({
      ...createServerOptions(options).options,
      loggerInstance: app.log,
      logController: new LogController({ disableRequestLogging: true }),
      forceCloseConnections: true, // no scrape delays the shutdown
    })
    app.addHook('onClose', () => server.close())
    await server.register(errorHandler)
    await server.register(hostHeader, options)
    await server.register(methodNotAllowed)
    await server.register(metricsRoute, { readMetrics })
    server.refuseOtherMethods()
    await listen(server, {
      ...{ host, port, hostSetting, portSetting: 'METRICS_PORT' },
      listenTextResolver: (address) => `metrics are served at ${address}/metrics`,
    })
  },
  { name: 'metrics-server' },
)
