import type { FastifyRequest } from 'fastify'

/** Each line of a header, named in lower case: `request.headers` joins several or drops them. */
export function headerLines(request: FastifyRequest, name: string): string[] {
  const { rawHeaders } = request.raw
  return rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]?.toLowerCase() === name)
}
