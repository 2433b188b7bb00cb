/** The application: what it is built on, and the pipeline of a request, in its order. */
import { type IdempotencyStore, idempotency } from '@order-once/idempotency'
import { type FastifyBaseLogger, type FastifyInstance, fastify, LogController } from 'fastify'
import { clients, getKeyScope } from './clients/clients.ts'
import { docs } from './docs/docs.ts'
import { bodyCheck } from './http/body-check.ts'
import { errorHandler } from './http/error-handler.ts'
import { groupRequestsByTick } from './http/group-requests.ts'
import { health } from './http/health.ts'
import { hostHeader, isLoopbackName } from './http/host-header.ts'
import { methodNotAllowed } from './http/method-not-allowed.ts'
import { overload } from './http/overload.ts'
import { createProxyTrust } from './http/proxy-trust.ts'
import { rawBody } from './http/raw-body.ts'
import { getRequestId, requestLog } from './http/request-log.ts'
import { schemaCompilers } from './http/schema-compilers.ts'
import { createServerOptions } from './http/server.ts'
import { shutdown } from './http/shutdown.ts'
import { MAX_HEADER_BYTES } from './limits.ts'
import { metrics } from './observability/metrics.ts'
import { metricsRoute } from './observability/metrics-route.ts'
import { storeMetrics } from './observability/store-metrics.ts'
import { type OrdersRepository, ordersRepository } from './orders/repository.ts'
import { orderRoutes, recoverResponse } from './orders/routes.ts'
import { FIELD_KEYWORDS, fingerprintOrder, NEW_ORDER, type NewOrder } from './orders/schema.ts'
import { rateLimit, rateLimitCounters } from './rate-limit/rate-limit.ts'
import { getTracesEnvironment, isSecretPublished, type Settings } from './settings.ts'
import { signature } from './signature/signature.ts'
import { storeCheck } from './stores/health-check.ts'
import { idempotencyStore } from './stores/idempotency-store.ts'
import { postgresPool } from './stores/postgres-pool.ts'
import { type Stores, stores } from './stores/prepare.ts'
import { redisConnection } from './stores/redis.ts'

/** No parameter of a path is longer. So a long one gets 404, and no error of the router. */
const MAX_PARAM_LENGTH = MAX_HEADER_BYTES

export interface Overrides {
  /** stores that another process, or a test, has prepared; without them, the app prepares its own */
  stores?: Stores | undefined
  /** ends the start while it waits for a store */
  signal?: AbortSignal
  /** puts something in front of the orders in Postgres */
  wrapOrders?: (orders: OrdersRepository) => OrdersRepository
  /** puts something in front of the store of idempotency records */
  wrapIdempotencyStore?: (store: IdempotencyStore) => IdempotencyStore
}

/**
 * Builds the app. Its `close` closes all that was opened, in reverse order.
 *
 * @throws {StartError} after closing what was opened, if a store that is needed does not respond
 */
export async function buildApp(
  settings: Settings,
  logger: FastifyBaseLogger,
  overrides: Overrides = {},
): Promise<FastifyInstance> {
  const { options, connections } = createServerOptions(settings)
  const app = fastify({
    ...options,
    loggerInstance: logger,
    logController: new LogController({ disableRequestLogging: true }), // requestLog logs them
    genReqId: getRequestId,
    requestIdHeader: false,
    trustProxy: settings.trustedProxies ? createProxyTrust(settings.trustedProxies) : false,
    pluginTimeout: 0, // each store has time limits of its own
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
  })

  try {
    // What the pipeline is built on.
    if (settings.tracesEndpoint) {
      const { tracing } = await import('./observability/tracing.ts')
      await app.register(tracing, { environment: getTracesEnvironment(settings) })
    }
    await app.register(stores, {
      settings,
      prepared: overrides.stores,
      signal: overrides.signal,
    })
    await app.register(postgresPool)
    await app.register(redisConnection)
    await app.register(metrics)
    await app.register(clients, { file: settings.clientsFile })
    await app.register(ordersRepository, {
      maxBatch: settings.maxInsertBatch,
      ...(overrides.wrapOrders && { wrap: overrides.wrapOrders }),
    })
    await app.register(idempotencyStore, {
      settings,
      ...(overrides.wrapIdempotencyStore && { wrap: overrides.wrapIdempotencyStore }),
    })
    await app.register(storeCheck)
    await app.register(storeMetrics)

    // Every request.
    await app.register(requestLog)
    await app.register(errorHandler)
    await app.register(shutdown, { connections })
    await app.register(hostHeader, {
      isLocal: isLoopbackName(settings.host) && isSecretPublished(settings),
      publicUrl: settings.publicUrl,
    })
    await app.register(overload)
    await app.register(methodNotAllowed)
    await app.register(schemaCompilers)

    // What needs no signature.
    await app.register(docs, { settings, orderSchema: NEW_ORDER })
    await app.register(health)
    if (settings.metricsPort === undefined) {
      await app.register(metricsRoute, { readMetrics: app.metrics.read })
    }

    // What needs a signature.
    await app.register(async (signed) => {
      const limits = {
        max: settings.rateLimitMax,
        windowMs: settings.rateLimitWindowMs,
        maxSignatureFailures: settings.maxSignatureFailures,
      }
      await signed.register(rawBody)
      await signed.register(groupRequestsByTick)
      await signed.register(rateLimitCounters, limits)
      await signed.register(signature, {
        secrets: settings.hmacSecrets,
        maxAgeSeconds: settings.maxSignatureAgeSeconds,
        publicUrl: settings.publicUrl,
      })
      await signed.register(rateLimit, limits)
      await signed.register(bodyCheck, { keywords: FIELD_KEYWORDS })
      await signed.register(idempotency, {
        store: signed.idempotencyStore,
        mismatchStatus: settings.mismatchStatus,
        // It names the method and the path of the only route that is protected.
        fingerprint: ({ body }) => fingerprintOrder(body as NewOrder),
        waitMs: settings.waitMs,
        scope: getKeyScope,
        recover: (_storeKey, request) => recoverResponse(signed.orders, request),
        onRelease: signed.metrics.countRelease,
        onWaitersChange: signed.metrics.setWaiting,
      })
      await signed.register(orderRoutes, { mismatchStatus: settings.mismatchStatus })
    })
    app.refuseOtherMethods()
    return app
  } catch (error) {
    await app.close()
    throw error
  }
}
