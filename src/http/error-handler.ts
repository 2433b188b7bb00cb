/** Sends every error, and every unknown path, as a problem document (RFC 9457). */
import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { PROBLEM_MEDIA_TYPE, Problem } from '@order-once/idempotency'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { DatabaseUnavailableError } from '../stores/database-unavailable.ts'
import { UUID } from '../uuid.ts'
import { isRetryable, PROBLEMS_PATH, problems } from './problems.ts'

/** Sets the handlers of errors and of unknown paths. */
export const errorHandler = fastifyPlugin(
  async (app) => {
    app.removeAllContentTypeParsers() // an unknown path is refused without its body
    app.setErrorHandler(sendError)
    app.setNotFoundHandler((request, reply) =>
      sendError(problems.notFound(getPath(request)), request, reply),
    )
  },
  { name: 'error-handler' },
)

/** Sends an error of a route, a hook or the framework, and logs it if it is a fault of the service. */
export function sendError(
  error: FastifyError | Problem | Error,
  request: FastifyRequest,
  reply: FastifyReply,
) {
  const problem = toProblem(error, request)
  // The log has one line when the database is lost, not one a request.
  if (problem.code === 'internal-error') request.log.error({ err: error }, 'the request failed')
  return reply
    .code(problem.statusCode)
    .headers({ 'x-request-id': request.id, ...problem.headers }) // no hook runs for a malformed URL
    .type(PROBLEM_MEDIA_TYPE)
    .send(formatProblem(problem, request.id))
}

/** Sends the refusal of what is not HTTP, or arrived too slowly, directly on the socket. */
export function sendClientError(
  error: NodeJS.ErrnoException,
  socket: Socket,
  hasRequestInFlight: boolean,
): void {
  // While a request is in flight on the connection, its client would take this for its response.
  if (error.code === 'ECONNRESET' || !socket.writable || hasRequestInFlight) {
    socket.destroy()
    return
  }
  const problem = toClientProblem(error.code)
  const body = formatProblem(problem)
  socket.end(
    [
      `HTTP/1.1 ${problem.statusCode} ${STATUS_CODES[problem.statusCode]}`,
      `Content-Type: ${PROBLEM_MEDIA_TYPE}`,
      `Content-Length: ${Buffer.byteLength(body)}`,
      'Connection: close',
      '',
      body,
    ].join('\r\n'),
  )
}

/** Formats a problem document. Its `instance` is the id of the request, where that is a UUID (RFC 9562 §4). */
function formatProblem(problem: Problem, requestId = ''): string {
  return JSON.stringify({
    ...problem.toDocument(PROBLEMS_PATH),
    ...(UUID.test(requestId) && { instance: `urn:uuid:${requestId}` }),
    retryable: isRetryable(problem),
  })
}

function toProblem(error: FastifyError | Problem | Error, request: FastifyRequest): Problem {
  if (error instanceof Problem) return error
  if (error instanceof DatabaseUnavailableError) return problems.databaseUnavailable()
  const { code = '', statusCode = 500 } = error as Partial<FastifyError>
  if (request.is404 && code.startsWith('FST_ERR_CTP_')) return problems.notFound(getPath(request))
  // Errors that the framework blames on the client, such as a URL that cannot be decoded.
  if (code.startsWith('FST_') && statusCode < 500) return problems.badRequest(error.message)
  // The queue of inserts and the pool of connections are full.
  if (statusCode === 503) return problems.overloaded()
  return problems.internalError()
}

function toClientProblem(code: string | undefined): Problem {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return problems.headersTooLarge()
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return problems.requestTimeout()
    default:
      return problems.malformedHttp()
  }
}

/** The path of a request as it was sent, without its query. */
export function getPath(request: FastifyRequest): string {
  return request.url.split('?', 1)[0] ?? request.url
}
