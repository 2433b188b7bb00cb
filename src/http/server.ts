/** Creates the HTTP servers of the service, with the limits that hold before any hook sees a request. */
import { createServer, type RequestListener, type Server } from 'node:http'
import type { FastifyServerOptions } from 'fastify'
import {
  HEADERS_TIMEOUT_MS,
  MAX_HEADER_BYTES,
  REQUEST_TIMEOUT_MS,
  STALLED_CONNECTION_TIMEOUT_MS,
} from '../limits.ts'
import { trackConnections } from './connections.ts'
import { sendClientError, sendError } from './error-handler.ts'

/** How often Node looks for connections that have exceeded their time; by default every 30 s. */
const TIMEOUT_CHECK_INTERVAL_MS = 1_000

export interface ServerLimits {
  keepAliveTimeoutMs: number
  maxBodyBytes: number
}

/**
 * Returns the options that each Fastify instance of the service needs to listen, and the connections of its
 * server.
 */
export function createServerOptions({ keepAliveTimeoutMs, maxBodyBytes }: ServerLimits) {
  const connections = trackConnections()

  function serverFactory(handle: RequestListener): Server {
    const server = createServer({
      keepAliveTimeout: keepAliveTimeoutMs,
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: TIMEOUT_CHECK_INTERVAL_MS,
      requireHostHeader: false, // hostHeader sends a problem document
    })
    // By default Node drops header lines after the first 2000. Their bytes are bounded already.
    server.maxHeadersCount = 0
    server.timeout = STALLED_CONNECTION_TIMEOUT_MS
    server.on('connection', connections.add)
    server.on('request', (request, response) => {
      if (connections.admit(request, response)) handle(request, response)
    })
    handleExpectHeader(server, maxBodyBytes)
    return server
  }

  const options = {
    serverFactory,
    bodyLimit: maxBodyBytes,
    return503OnClosing: false, // shutdown sends a problem document
    frameworkErrors: sendError,
    clientErrorHandler: (error, socket) =>
      sendClientError(error, socket, connections.hasRequestInFlight(socket)),
  } satisfies FastifyServerOptions
  return { options, connections }
}

/**
 * Handles the `Expect` header (RFC 9110 §10.1.1). Sends `100 Continue` only for a body that will be read, so
 * that a client need not send one that is too large. Ignores unknown expectations, which Node would refuse.
 */
function handleExpectHeader(server: Server, maxBodyBytes: number): void {
  server.on('checkContinue', (request, response) => {
    if (Number(request.headers['content-length'] ?? 0) <= maxBodyBytes) response.writeContinue()
    server.emit('request', request, response)
  })
  server.on('checkExpectation', (request, response) => server.emit('request', request, response))
}
