import type { FastifyRequest } from 'fastify'

/** Each line of a header, named in lower case: `request.headers` joins several or drops them. */
export function headerLines(request: FastifyRequest, name: string): string[] {
  const { rawHeaders } = request.raw
  const lines: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const given = rawHeaders[i] as string
    if (given.length !== name.length || given.toLowerCase() !== name) continue
    lines.push(rawHeaders[i + 1] as string)
  }
  return lines
}
