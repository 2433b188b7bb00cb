/** Where requests come from, for the rate limit and the log. */
import { isIP, type Socket } from 'node:net'
import { normalizeIP } from '@fastify/rate-limit'
import type { FastifyRequest } from 'fastify'
import { removePort } from './proxy-trust.ts'

/** The last address of each open connection. */
const lastAddresses = new WeakMap<Socket, { ip: string; address: string }>()

/**
 * Returns where a request comes from: its IPv4 address or its IPv6 /64 network, which is the same for most
 * requests on a connection.
 */
export function identifyAddress({ ip, socket }: Pick<FastifyRequest, 'ip' | 'socket'>): string {
  const last = lastAddresses.get(socket)
  if (last?.ip === ip) return last.address
  const address = parseAddress(ip, socket)
  lastAddresses.set(socket, { ip, address })
  return address
}

/** Some proxies append the client's port, and a client can send them anything. */
function parseAddress(ip: string, socket: Socket): string {
  const address = removePort(ip)
  return normalizeIP(isIP(address) ? address : (socket.remoteAddress ?? ''))
}
