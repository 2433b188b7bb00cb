/** Who a request comes from, for a limit: an IPv4 address or an IPv6 /64 network. */
import { isIP, type Socket } from 'node:net'
import { normalizeIP } from '@fastify/rate-limit'
import type { FastifyRequest } from 'fastify'

/** The last client of each open connection. */
const lastClients = new WeakMap<Socket, { ip: string; client: string }>()

/** Returns the client's address or network, which is the same for most requests on a connection. */
export function identifyClient({ ip, socket }: FastifyRequest): string {
  const last = lastClients.get(socket)
  if (last?.ip === ip) return last.client
  const client = parseClient(ip, socket)
  lastClients.set(socket, { ip, client })
  return client
}

/** Some proxies append the client's port, and a client can send them anything. */
function parseClient(ip: string, socket: Socket): string {
  const address = ip.replace(/^\[(.*)\](:\d+)?$/, '$1').replace(/^([\d.]+):\d+$/, '$1')
  return normalizeIP(isIP(address) ? address : (socket.remoteAddress ?? ''))
}
