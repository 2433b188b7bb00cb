/** Keeps the bytes of a body, which the signature covers, until `bodyCheck` parses them. */
import type { Problem } from '@order-once/idempotency'
import type { FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { problems } from './problems.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** the bytes of the body */
    rawBody: Buffer
  }
}

const NO_BYTES: Buffer = Buffer.alloc(0)

/** Bounds the work for tiny chunks. In TCP segments of 536 bytes, 1 MiB has half as many chunks. */
const MAX_CHUNKS = 4_096

/** Decorates each request with `rawBody`, the exact bytes of its body, for the check of the signature. */
export const rawBody = fastifyPlugin(
  async (app) => {
    app.decorateRequest('rawBody')

    app.addHook('onRequest', (request, _reply, done) => {
      request.rawBody = NO_BYTES
      // Fastify refuses a Content-Type that it cannot parse before any hook could check a signature.
      if (!request.mediaType) delete request.raw.headers['content-type']
      done()
    })

    app.addContentTypeParser('*', (request: FastifyRequest, _payload, done) => {
      readBytes(request, (refusal, bytes) => {
        request.rawBody = bytes
        done(refusal)
      })
    })
  },
  { name: 'raw-body', dependencies: ['error-handler'] },
)

/**
 * Reads a body into one buffer. The framework's own parser keeps each chunk until the end of the body, and a
 * chunk of one byte takes a kilobyte.
 *
 * @param done called once, with a refusal or with null and the bytes
 */
function readBytes(
  { raw, headers, routeOptions }: FastifyRequest,
  done: (refusal: Problem | null, bytes: Buffer) => void,
): void {
  const maxBytes = routeOptions.bodyLimit
  let bytes = NO_BYTES
  let length = 0
  let chunks = 0

  function finish(refusal: Problem | null): void {
    raw.off('data', addChunk) // after a refusal, what follows is dropped
    raw.off('end', finishBody)
    raw.off('error', refuseInterrupted)
    done(refusal, bytes.subarray(0, length))
  }
  function addChunk(chunk: Buffer): void {
    const start = length
    length += chunk.length
    chunks++
    if (length > maxBytes) finish(problems.bodyTooLarge(maxBytes))
    else if (chunks > MAX_CHUNKS) finish(problems.tooManyChunks(MAX_CHUNKS))
    else {
      if (length > bytes.length) bytes = enlarge(bytes, Math.max(length, 2 * start))
      chunk.copy(bytes, start)
    }
  }
  const finishBody = () => finish(null)
  const refuseInterrupted = ({ message }: Error) => finish(problems.badRequest(message))

  if (Number(headers['content-length']) > maxBytes) {
    return void done(problems.bodyTooLarge(maxBytes), NO_BYTES)
  }
  raw.on('data', addChunk)
  raw.on('end', finishBody)
  raw.on('error', refuseInterrupted)
}

function enlarge(bytes: Buffer, size: number): Buffer {
  const larger = Buffer.allocUnsafe(size)
  bytes.copy(larger)
  return larger
}
