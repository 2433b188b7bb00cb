import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { overloaded } from './overload.ts'
import { PROBLEM_MEDIA_TYPE, Problem } from './problem.ts'

/** A database that was restarted is back by then, more often than not. */
const INTERNAL_ERROR_RETRY_AFTER_SECONDS = '1'

/** Answers every error and every unknown path with a problem document (RFC 9457). */
export const errorHandler = fastifyPlugin(async (app) => {
  app.setErrorHandler(answerError)
  app.setNotFoundHandler((request, reply) => answerError(notFound(request), request, reply))
})

/** Answers an error of a route, a hook or the framework, and logs it if it is ours. */
export function answerError(
  error: FastifyError | Problem | Error,
  request: FastifyRequest,
  reply: FastifyReply,
) {
  const problem = problemOf(error, request)
  if (problem.status >= 500 && !(error instanceof Problem)) {
    request.log.error({ err: error }, 'the request failed')
  }
  return reply
    .code(problem.status)
    .headers({ 'x-request-id': request.id, ...problem.headers }) // no hook runs for a bad URL
    .type(PROBLEM_MEDIA_TYPE)
    .send(JSON.stringify(problem.document))
}

/** Answers what is not HTTP at all, or came too slowly, straight on the socket. */
export function answerClientError(
  error: NodeJS.ErrnoException,
  socket: Socket,
  isAtWork: boolean,
): void {
  // While a request is at work on the connection, its client would take this for its answer.
  if (error.code === 'ECONNRESET' || !socket.writable || isAtWork) {
    socket.destroy()
    return
  }
  const problem = clientProblemOf(error.code)
  const body = JSON.stringify(problem.toDocument())
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

/** A problem on its way to the client. */
interface OutgoingProblem {
  status: number
  headers: Record<string, string>
  document: object
}

function problemOf(
  error: FastifyError | Problem | Error,
  request: FastifyRequest,
): OutgoingProblem {
  if (error instanceof Problem) return outgoing(error)
  const { code = '', statusCode = 500 } = error as Partial<FastifyError>
  if (request.is404 && code.startsWith('FST_ERR_CTP_')) return outgoing(notFound(request))
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    const limit = request.routeOptions.bodyLimit
    return outgoing(
      new Problem('body-too-large', `The body must not be larger than ${limit} bytes.`),
    )
  }
  // What else the framework blames on the client: a URL that cannot be decoded, a Content-Length
  // that does not fit, a body that broke off.
  if (code.startsWith('FST_') && statusCode < 500) {
    return outgoing(new Problem('bad-request', error.message))
  }
  if (statusCode === 503) return outgoing(overloaded())
  if (statusCode !== 500) return foreignProblem(statusCode, error.message)
  return outgoing(
    new Problem('internal-error', 'The request could not be completed. It is safe to repeat it.', {
      headers: { 'retry-after': INTERNAL_ERROR_RETRY_AFTER_SECONDS },
    }),
  )
}

const outgoing = (problem: Problem): OutgoingProblem => ({
  status: problem.statusCode,
  headers: problem.headers,
  document: problem.toDocument(),
})

/** An error that a handler of another application threw on purpose (RFC 9457 §4.2.1). */
function foreignProblem(status: number, message: string): OutgoingProblem {
  const title = STATUS_CODES[status] ?? 'Error'
  const detail = status < 500 ? message : title
  return { status, headers: {}, document: { type: 'about:blank', title, status, detail } }
}

const notFound = (request: FastifyRequest) =>
  new Problem('not-found', `There is nothing at ${pathOf(request)}.`)

function clientProblemOf(code: string | undefined): Problem {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return new Problem('headers-too-large', 'The headers must not be larger than 16384 bytes.')
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new Problem('request-timeout', 'The request did not arrive in time.')
    default:
      return new Problem('bad-request', 'The request is not well-formed HTTP/1.1.')
  }
}

/** The path of a request as it was sent, without its query. */
export function pathOf(request: FastifyRequest): string {
  return request.url.split('?', 1)[0] ?? request.url
}
