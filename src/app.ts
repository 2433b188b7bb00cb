import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { type FastifyPluginAsync, fastify, LogController } from 'fastify'
import type { Logger } from 'pino'
import type { CheckStores } from './check-stores.ts'
import { trackConnections } from './http/connections.ts'
import { docs } from './http/docs.ts'
import { answerClientError, answerError, errorHandler } from './http/error-handler.ts'
import { heedExpectations } from './http/expectations.ts'
import type { StoresInUse } from './http/front-page.ts'
import { gather } from './http/gather.ts'
import { gracefulClose } from './http/graceful-close.ts'
import { health } from './http/health.ts'
import { hostCheck } from './http/host-check.ts'
import { idempotency } from './http/idempotency.ts'
import { bodyCheck, jsonBody } from './http/json-body.ts'
import { measure } from './http/measure.ts'
import { methodNotAllowed } from './http/method-not-allowed.ts'
import { metricsRoute } from './http/metrics-route.ts'
import { overload } from './http/overload.ts'
import { problemPages } from './http/problem-pages.ts'
import { rateLimit } from './http/rate-limit.ts'
import { requestIdOf, requestLog } from './http/request-log.ts'
import { signature } from './http/signature.ts'
import type { IdempotencyStore } from './idempotency/store.ts'
import { WaitingRoom } from './idempotency/waiting-room.ts'
import { countAbandoned } from './metrics/count-abandoned.ts'
import type { Metrics } from './metrics/metrics.ts'
import { maxDecimalsKeyword } from './orders/order.ts'
import { orderFingerprint, orderRoutes, recoverAnswer } from './orders/order-routes.ts'
import type { OrdersRepository } from './orders/orders-repository.ts'
import type { CountHit } from './rate-limit/hits.ts'
import { DEVELOPMENT_SECRET, type Settings } from './settings.ts'

/** How long a client may take to send one request: a small body on a poor line, not a slow attack. */
const REQUEST_TIMEOUT_MS = 15_000

/** Headers are small. */
const HEADERS_TIMEOUT_MS = 10_000
/** How often Node looks for connections that have used up those times; by default every 30 s. */
const TIMEOUT_CHECK_MS = 1_000

/** Longer than Node reads headers: what is too long for a route is unknown, not malformed. */
const MAX_PARAM_LENGTH = 16_384

/** What the app is built on; opened, and closed, by whoever builds it. */
export interface AppResources {
  settings: Settings
  logger: Logger
  orders: OrdersRepository
  idempotencyStore: IdempotencyStore
  /** what the front page says of the stores; without it, nothing */
  storesInUse?: StoresInUse
  /** counts for the rate limit, for all instances; without it, this process counts alone */
  countHit: CountHit | undefined
  checkStores: CheckStores
  metrics: Metrics
  /** traces the requests; without it, they are not traced */
  tracing?: FastifyPluginAsync
}

/** Builds the service: the pipeline of a request, in its order. */
export async function buildApp(resources: AppResources) {
  const { settings, logger, orders, countHit, checkStores, metrics } = resources
  const idempotencyStore = countAbandoned(resources.idempotencyStore, metrics.claimAbandoned)
  const app = fastify({
    loggerInstance: logger,
    logController: new LogController({ disableRequestLogging: true }), // requestLog does it
    genReqId: requestIdOf,
    requestIdHeader: false,
    trustProxy: settings.trustedProxies.length > 0 && settings.trustedProxies,
    bodyLimit: settings.maxBodyBytes,
    requestTimeout: REQUEST_TIMEOUT_MS,
    http: {
      headersTimeout: HEADERS_TIMEOUT_MS,
      connectionsCheckingInterval: TIMEOUT_CHECK_MS,
      requireHostHeader: false, // hostCheck answers with a problem document
    },
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
    return503OnClosing: false, // gracefulClose answers with a problem document
    frameworkErrors: answerError,
    clientErrorHandler: (error, socket) =>
      answerClientError(error, socket, connections.isAtWork(socket)),
    ajv: {
      customOptions: {
        // A body is what it is: by default, members are dropped and "5" becomes 5.
        removeAdditional: false,
        coerceTypes: false,
        useDefaults: false,
        allErrors: true,
        verbose: true, // the error carries the schema, whose description is the rule in words
        keywords: [maxDecimalsKeyword],
      },
    },
  }).withTypeProvider<TypeBoxTypeProvider>()

  const connections = trackConnections(app.server)
  heedExpectations(app.server, settings.maxBodyBytes)
  const waitingRoom = new WaitingRoom(idempotencyStore)

  if (resources.tracing) await app.register(resources.tracing)
  await app.register(requestLog)
  await app.register(measure, { metrics })
  await app.register(gracefulClose, { connections })
  await app.register(errorHandler)
  await app.register(hostCheck)
  await app.register(overload)
  await app.register(methodNotAllowed)
  if (settings.docs) {
    await app.register(docs, {
      knownSecret: settings.hmacSecrets.find((secret) => secret === DEVELOPMENT_SECRET),
      storesInUse: resources.storesInUse,
      hasMetrics: settings.metricsPort === undefined,
    })
  }
  await app.register(problemPages)
  await app.register(health, { checkStores })
  if (settings.metricsPort === undefined) await app.register(metricsRoute, { metrics })

  await app.register(async (signed) => {
    await signed.register(jsonBody)
    await signed.register(gather)
    await signed.register(signature, {
      secrets: settings.hmacSecrets,
      maxFailures: settings.maxSignatureFailures,
      windowMs: settings.rateLimit.windowMs,
      onFailure: metrics.signatureFailed,
    })
    await signed.register(rateLimit, {
      ...settings.rateLimit,
      countHit,
      onExceeded: metrics.rateLimited,
    })
    await signed.register(bodyCheck)
    await signed.register(idempotency, {
      store: idempotencyStore,
      mismatchStatus: settings.idempotency.mismatchStatus,
      fingerprint: orderFingerprint,
      waitMs: settings.idempotency.waitMs,
      waitingRoom,
      recover: (key) => recoverAnswer(orders, key),
    })
    await signed.register(orderRoutes, {
      orders,
      mismatchStatus: settings.idempotency.mismatchStatus,
    })
  })

  app.refuseOtherMethods()
  return Object.assign(app, { waitingRoom })
}
