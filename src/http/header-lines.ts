/** Reads each line of a header: `request.headers` joins several, or drops them. */
import type { FastifyRequest } from 'fastify'

/** @param name in lower case */
export function getHeaderLines(request: FastifyRequest, name: string): string[] {
  const { rawHeaders } = request.raw
  const lines: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const given = rawHeaders[i] ?? ''
    if (given.length !== name.length || given.toLowerCase() !== name) continue
    lines.push(rawHeaders[i + 1] ?? '')
  }
  return lines
}
