/** The `Expect` header (RFC 9110 §10.1.1). */
import type { Server } from 'node:http'

/**
 * Sends `100 Continue` only for a body that will be read, so that a client need not send one that is too
 * large. Ignores unknown expectations, which Node would refuse.
 */
export function handleExpectHeader(server: Server, maxBodyBytes: number): void {
  server.on('checkContinue', (request, response) => {
    if (Number(request.headers['content-length'] ?? 0) <= maxBodyBytes) response.writeContinue()
    server.emit('request', request, response)
  })
  server.on('checkExpectation', (request, response) => server.emit('request', request, response))
}
