/** Sends a stored response again, with the same bytes. */
import type { FastifyReply } from 'fastify'
import { BODY_HEADERS } from './replayed-headers.ts'
import type { StoredResponse } from './stores/store.ts'
import { isWebResponse } from './web-response.ts'

/** Sends a response through all `onSend` hooks. An empty one has no payload, which would get a type. */
export function sendResponse(
  reply: FastifyReply,
  { statusCode, headers, body }: StoredResponse,
): FastifyReply {
  return reply
    .code(statusCode)
    .headers(headers)
    .send(body.length > 0 ? body : undefined)
}

/**
 * Undoes what the hooks before this one have done to a replay: the stored response has their changes
 * already.
 *
 * @param replayedHeaders those that the store keeps
 * @returns the payload
 */
export function restoreResponse(
  reply: FastifyReply,
  payload: unknown,
  { statusCode, headers, body }: StoredResponse,
  replayedHeaders: string[],
): string | Buffer | null {
  reply.code(statusCode).headers(headers)
  for (const name of BODY_HEADERS) {
    const isMissing = headers[name] === undefined && replayedHeaders.includes(name)
    if (isMissing && reply.hasHeader(name)) reply.removeHeader(name)
  }
  if (payload !== body) {
    reply.removeHeader('content-length') // of another body
    destroyStream(payload)
  }
  return body.length > 0 ? body : null
}

/** Removes the headers of a replay that is not sent because a hook has failed. */
export function removeReplay(reply: FastifyReply, { headers }: StoredResponse): void {
  for (const name of Object.keys(headers)) reply.removeHeader(name)
}

/** Whether the payload can be read only once: a stream of Node or of the web. */
export function isStream(payload: unknown): payload is NodeJS.ReadableStream | ReadableStream {
  return (
    typeof payload === 'object' &&
    payload !== null &&
    (('pipe' in payload && typeof payload.pipe === 'function') ||
      ('getReader' in payload && typeof payload.getReader === 'function'))
  )
}

/** Frees what the stream of a hook holds, such as a file or a compressor. */
function destroyStream(payload: unknown): void {
  const stream = isWebResponse(payload) ? payload.body : payload
  if (!isStream(stream)) return
  if (stream instanceof ReadableStream) stream.cancel().catch(() => {})
  else if ('destroy' in stream && typeof stream.destroy === 'function') {
    stream.on('error', () => {}) // of its sources, which end with it
    stream.destroy()
  }
}
