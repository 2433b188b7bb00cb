/** Checks the `Host` header. */
import { isIPv6 } from 'node:net'
import type { FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { problems } from './problems.ts'

export interface HostHeaderOptions {
  isLocal: boolean
  publicUrl: string | undefined
}

/**
 * Refuses HTTP/1.1 without exactly one `Host` (RFC 9112 §3.2).
 *
 * @param options `isLocal`: whether to refuse names that are not of this machine, except that of
 * `publicUrl`. A web page that has its own name resolved to a loopback address (DNS rebinding) could
 * otherwise use a service that only this machine reaches.
 */
export const hostHeader = fastifyPlugin(
  async (app, { isLocal, publicUrl }: HostHeaderOptions) => {
    const expected = publicUrl === undefined ? undefined : new URL(publicUrl)
    const isPublicName = (host: string) =>
      expected !== undefined && parseHost(host, expected.protocol)?.host === expected.host

    app.addHook('onRequest', (request, _reply, done) => {
      const hosts = countHostLines(request)
      const isValid = hosts === 1 || (hosts === 0 && request.raw.httpVersion !== '1.1')
      if (!isValid) return done(problems.hostHeader())
      const { host } = request.headers
      if (!isLocal || !host || isPublicName(host) || isLoopbackName(host)) return done()
      done(problems.misdirectedRequest())
    })
  },
  { name: 'host-header', dependencies: ['error-handler'] },
)

/** Whether a host, with or without a port, names this machine: RFC 6761 §6.3, RFC 1122 §3.2.1.3, RFC 4291 §2.5.3. */
export function isLoopbackName(host: string): boolean {
  const name = parseHost(host, 'http:')?.hostname ?? ''
  return /^(.+\.)?localhost\.?$|^127\.\d+\.\d+\.\d+$|^\[::1\]$/.test(name)
}

/** Parses a host into its normal form: in lower case, and without the port that is the default of its protocol. */
function parseHost(host: string, protocol: string): URL | undefined {
  const url = `${protocol}//${isIPv6(host) ? `[${host}]` : host}`
  if (/[@/?#\\]/.test(host)) return undefined // a URL has other parts than a host
  return URL.canParse(url) ? new URL(url) : undefined
}

/** `request.headers` has only the first of several. */
function countHostLines({ raw }: FastifyRequest): number {
  let count = 0
  for (let i = 0; i < raw.rawHeaders.length; i += 2) {
    const name = raw.rawHeaders[i]
    if (name?.length === 4 && name.toLowerCase() === 'host') count++
  }
  return count
}
