import { isIP, type Socket } from 'node:net'
import fastifyRateLimit, {
  type FastifyRateLimitStore,
  type FastifyRateLimitStoreCtor,
  normalizeIP,
} from '@fastify/rate-limit'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { CountHit } from '../rate-limit/hits.ts'
import { createMemoryHits } from '../rate-limit/memory-hits.ts'
import { Problem } from './problem.ts'

/**
 * A counter of requests in a fixed window by client; a client is its IPv4 address or its IPv6 /64
 * network. It counts with `countHit`, or else in this process.
 *
 * @param options `max` requests in `timeWindow` ms
 */
export async function createLimiter(
  app: FastifyInstance,
  options: { max: number; timeWindow: number; countHit?: CountHit },
) {
  const { max, timeWindow } = options
  const { countHit = createMemoryHits({ windowMs: timeWindow }) } = options
  let limiter: ReturnType<FastifyInstance['createRateLimit']> | undefined
  // In a scope of its own: the plugin has one store, and decorates the scope it is registered in.
  await app.register(async (scope) => {
    await scope.register(fastifyRateLimit, {
      global: false,
      keyGenerator: clientOf,
      max,
      timeWindow,
      // Of requests that it counts at one moment, the plugin's own store tells each the last count.
      store: storeOn(countHit),
    })
    limiter = scope.createRateLimit()
  })
  if (limiter === undefined) throw new Error('the limiter was not made')
  return limiter
}

/** The count as the plugin wants it: a class, which it makes an object of. */
function storeOn(countHit: CountHit): FastifyRateLimitStoreCtor {
  return class implements FastifyRateLimitStore {
    incr(client: string, callback: Parameters<FastifyRateLimitStore['incr']>[1]): void {
      const hits = countHit(client)
      if (hits instanceof Promise) hits.then((counted) => callback(null, counted), callback)
      else callback(null, hits)
    }

    child() {
      return this
    }
  }
}

/** The refusal of a request beyond a limit. @param ttlInSeconds until the window ends */
export function limitExceeded(rule: string, ttlInSeconds: number): Problem {
  const wait = Math.max(1, ttlInSeconds)
  return new Problem('rate-limit-exceeded', `${rule}; wait ${wait} s.`, {
    headers: { 'retry-after': String(wait) },
  })
}

/** The clients that present connections last stood for. */
const lastClients = new WeakMap<Socket, { ip: string; client: string }>()

/** The client's address or network, which is the same for most requests on a connection. */
function clientOf({ ip, socket }: FastifyRequest): string {
  const last = lastClients.get(socket)
  if (last?.ip === ip) return last.client
  const client = parseClient(ip, socket)
  lastClients.set(socket, { ip, client })
  return client
}

/** Some proxies add the client's port, and anybody can send them nonsense. */
function parseClient(ip: string, socket: Socket): string {
  const address = ip.replace(/^\[(.*)\](:\d+)?$/, '$1').replace(/^([\d.]+):\d+$/, '$1')
  return normalizeIP(isIP(address) ? address : (socket.remoteAddress ?? ''))
}
