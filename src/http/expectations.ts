import type { Server } from 'node:http'

/**
 * Answers `Expect: 100-continue` with 100 only for a body that will be read, so that a body that is
 * too large need not be sent; and passes over expectations that it does not know, where Node would
 * refuse them (RFC 9110 §10.1.1 allows both).
 */
export function heedExpectations(server: Server, maxBodyBytes: number): void {
  server.on('checkContinue', (request, response) => {
    if (Number(request.headers['content-length'] ?? 0) <= maxBodyBytes) response.writeContinue()
    server.emit('request', request, response)
  })
  server.on('checkExpectation', (request, response) => server.emit('request', request, response))
}
