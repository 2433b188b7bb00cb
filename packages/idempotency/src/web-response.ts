/** Reads a `Response` of the Fetch API, so that it can be stored. */
import type { FastifyReply } from 'fastify'

/** Whether Fastify sends this payload as a `Response` of the Fetch API. */
export function isWebResponse(payload: unknown): payload is Response {
  return Object.prototype.toString.call(payload) === '[object Response]'
}

/** Sets the status and the headers of the response on the reply, as Fastify does when it sends it. */
export function applyResponse(reply: FastifyReply, { status, headers }: Response): void {
  reply.code(status)
  for (const [name, value] of headers) reply.header(name, value)
}

/** Whether the body has no end that a client waits for. */
export function isEventStream({ headers }: Response): boolean {
  return /^text\/event-stream\b/i.test(headers.get('content-type') ?? '')
}

/**
 * Reads a body of at most `maxBytes`.
 *
 * @returns its bytes; of a longer one, a stream with all of them
 * @throws what the body throws
 */
export async function readBody(
  body: ReadableStream<Uint8Array>,
  maxBytes: number,
): Promise<Buffer | ReadableStream<Uint8Array>> {
  const reader = body.getReader()
  const chunks: Uint8Array[] = []
  for (let bytes = 0; bytes <= maxBytes; ) {
    const { done, value } = await reader.read()
    if (done) return Buffer.concat(chunks)
    chunks.push(value)
    bytes += value.byteLength
  }
  return new ReadableStream({
    async pull(controller) {
      const chunk = chunks.shift()
      if (chunk !== undefined) return controller.enqueue(chunk)
      const { done, value } = await reader.read()
      if (done) controller.close()
      else controller.enqueue(value)
    },
    cancel: (reason) => reader.cancel(reason),
  })
}
