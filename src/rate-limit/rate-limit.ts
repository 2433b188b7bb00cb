/** Limits how many requests a client may send, and how many wrong signatures an address. */
import { isIP, type Socket } from 'node:net'
import fastifyRateLimit, {
  type FastifyRateLimitStore,
  type FastifyRateLimitStoreCtor,
  normalizeIP,
} from '@fastify/rate-limit'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { getClient } from '../clients/clients.ts'
import { DEFAULT_CLIENT_ID } from '../clients/clients-file.ts'
import { problems } from '../http/problems.ts'
import { removePort } from '../http/proxy-trust.ts'
import {
  createMemoryCounters,
  fallBackToMemory,
  type IncrementCounter,
  type WindowCount,
} from './counters.ts'
import { createRedisCounters } from './redis-counters.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * Counts a request without a valid signature.
     *
     * @throws {Problem} `rate-limit-exceeded`, if its address has sent too many
     */
    countSignatureFailure(request: FastifyRequest): Promise<void>
  }
}

export interface RateLimitOptions {
  /** requests of a client in a window, unless it has a limit of its own; `off`: no limit */
  max: number | 'off'
  /** wrong signatures from an address in a window */
  maxSignatureFailures: number
  /** the length of the window */
  windowMs: number
}

/** Begins the names of the counters of wrong signatures. */
const FAILURES_PREFIX = 'signature-failures:'
/** Begins the names of the counters of clients with an id: no address begins so. */
const CLIENT_PREFIX = 'client:'

/**
 * Registers the counters and decorates the app with `countSignatureFailure`. Requests and wrong
 * signatures are counted in Redis, for all processes; without Redis, or while it fails, in this process.
 */
export const rateLimitCounters = fastifyPlugin(
  async (app, { windowMs, maxSignatureFailures }: RateLimitOptions) => {
    await app.register(fastifyRateLimit, {
      global: false,
      timeWindow: windowMs,
      store: createStore(createCounters(app, windowMs)),
    })

    const countSignatureFailure = app.createRateLimit({
      max: maxSignatureFailures,
      keyGenerator: (request) => FAILURES_PREFIX + identifyAddress(request),
    })
    app.decorate('countSignatureFailure', async (request: FastifyRequest) => {
      const failures = await countSignatureFailure(request)
      if (!failures.isAllowed && failures.isExceeded) {
        throw problems.rateLimitExceeded('Too many wrong signatures', failures.ttlInSeconds)
      }
    })
  },
  { name: 'rate-limit-counters', dependencies: ['redis'] },
)

/**
 * Refuses requests of a client beyond its limit in a fixed window. Clients are counted by their ids. The default
 * client, whose secret many may share, is counted by address, unless it has a limit of its own.
 */
export const rateLimit = fastifyPlugin(
  async (app, { max, windowMs }: RateLimitOptions) => {
    if (max === 'off' && !app.clients.hasFile) return
    const findMax = (request: FastifyRequest) => getClient(request).rateLimitMax ?? max
    app.addHook(
      'preHandler',
      app.rateLimit({
        ...(max === 'off' && {
          allowList: (request: FastifyRequest) => findMax(request) === 'off',
        }),
        max: (request) => Number(findMax(request)),
        keyGenerator: nameCounter,
        onExceeded: () => app.metrics.countRateLimited(),
        errorResponseBuilder: (_request, { max, ttl }) =>
          problems.rateLimitExceeded(
            `At most ${max} requests are allowed in ${windowMs / 1000} s`,
            Math.ceil(ttl / 1000),
          ),
      }),
    )
  },
  { name: 'rate-limit', dependencies: ['clients', 'metrics', 'rate-limit-counters', 'signature'] },
)

function createCounters({ redis }: FastifyInstance, windowMs: number): IncrementCounter {
  if (redis === undefined) return createMemoryCounters(windowMs)
  const { client, limit, runCall } = redis
  return fallBackToMemory(createRedisCounters(client, { windowMs, limit, runCall }), windowMs)
}

/**
 * Creates the class that the package constructs: one store for all its limits. (Its own store in memory
 * gives all requests of one turn of the event loop the last count: none of fifteen would pass a limit of
 * ten.)
 */
function createStore(increment: IncrementCounter): FastifyRateLimitStoreCtor {
  return class CounterStore implements FastifyRateLimitStore {
    incr(
      name: string,
      callback: Parameters<FastifyRateLimitStore['incr']>[1],
      _windowMs: number,
      max: number,
    ): void {
      const succeed = ({ count, ttlMs }: WindowCount) =>
        callback(null, { current: count, ttl: ttlMs })
      const window = increment(name, max)
      if (window instanceof Promise) window.then(succeed, callback)
      else succeed(window)
    }

    /** The package asks for one store a limit; the counters of all limits have different names. */
    child(): CounterStore {
      return this
    }
  }
}

/** Returns the name of the counter of a signed request. */
function nameCounter(request: FastifyRequest): string {
  const { id, rateLimitMax } = getClient(request)
  const isShared = id === DEFAULT_CLIENT_ID && rateLimitMax === undefined
  return isShared ? identifyAddress(request) : CLIENT_PREFIX + id
}

/** The last address of each open connection. */
const lastAddresses = new WeakMap<Socket, { ip: string; address: string }>()

/**
 * Returns where a request comes from: its IPv4 address or its IPv6 /64 network, which is the same for most
 * requests on a connection.
 */
function identifyAddress({ ip, socket }: FastifyRequest): string {
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
