/** The Fastify plugin: runs the handlers behind it once per key. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { withDeadline } from './deadline.ts'
import { fingerprintRequest } from './fingerprint.ts'
import { parseIdempotencyKey } from './idempotency-key.ts'
import {
  confirmReplay,
  createIdempotentRequest,
  type IdempotentRequest,
  isReplay,
  refuseInProgress,
  refuseMismatch,
} from './idempotent-request.ts'
import { computeRetryAfterSeconds, type StoreOrRelease, startLease } from './lease.ts'
import { parsePreferredWait } from './prefer-header.ts'
import { problems } from './problems.ts'
import {
  type Claim,
  type CompletedRequest,
  ForeignRecordError,
  type IdempotencyStore,
} from './stores/store.ts'
import { type Waiter, WaitQueue } from './wait-queue.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** set once the key has been read; null on a request that is not protected */
    idempotency: IdempotentRequest | null
    [storeOrRelease]: StoreOrRelease | null
  }
}

/**
 * Under which a request carries the function that ends its lease, out of reach of handlers. (Not in a
 * WeakMap: entries outlive many garbage collections, at a sixth of an order's CPU.)
 */
const storeOrRelease = Symbol('storeOrRelease')

export interface IdempotencyOptions {
  store: IdempotencyStore
  /** whether a request without a key is refused, rather than handled without protection; default: true */
  required?: boolean
  /** the methods that are protected; default: POST and PATCH */
  methods?: string[]
  /**
   * what the key belongs to, such as a tenant: the same key in two scopes is two keys; `undefined`: to none,
   * which is a scope of its own; default: none
   */
  scope?: (request: FastifyRequest) => string | undefined
  /** what makes two requests the same; default: method, route, parameters, query and parsed body */
  fingerprint?: (request: FastifyRequest) => string
  /** whether a response with this status is stored, rather than its key released; default: below 500 */
  remembers?: (statusCode: number) => boolean
  /** the largest response body that is stored, in bytes; default: 1 MiB */
  maxBodyBytes?: number
  /** 409, or the 422 of draft-ietf-httpapi-idempotency-key-header-07 §2.7; default: 409 */
  mismatchStatus?: 409 | 422
  /** how long a claim may take, in ms; default: 1000 */
  storeTimeoutMs?: number
  /**
   * Looks for the key where the handler writes, if that is durable and refuses a key twice. With it,
   * requests go on without the store when it fails, and a completed request is never refused.
   */
  recover?: (key: string, request: FastifyRequest) => Promise<CompletedRequest | undefined>
  /** how long a duplicate waits for the first request, unless it prefers another time, in ms; default: 0 */
  waitMs?: number
  /** how many duplicates may wait at once: each has a connection and some kilobytes; default: 1000 */
  maxWaiters?: number
  /** called whenever a key is released without a stored response */
  onRelease?: () => void
  /** called with the number of waiting duplicates whenever it changes */
  onWaitersChange?: (count: number) => void
}

/** What came of a claim; `unclaimed`: the handler runs without one, and `recover` protects the key. */
type ClaimResult = Claim | { state: 'unclaimed' }

/** The longest wait that a client is granted: proxies end longer ones. */
export const MAX_WAIT_SECONDS = 30

/**
 * Runs the handlers behind it once per key: claims the key before the handler, stores the response after
 * it, and replays that response to every repeat (draft-ietf-httpapi-idempotency-key-header-07).
 * Register it in the scope of the routes that it is to protect.
 */
export const idempotency = fastifyPlugin(
  async (app, options: IdempotencyOptions) => {
    const { store, recover, scope, required = true, mismatchStatus = 409 } = options
    const { methods = ['POST', 'PATCH'], fingerprint = fingerprintParsedRequest } = options
    const { storeTimeoutMs = 1_000, waitMs = 0, maxWaiters = 1_000 } = options
    const lease = {
      store,
      remembers: options.remembers ?? ((statusCode: number) => statusCode < 500),
      maxBodyBytes: options.maxBodyBytes ?? 1024 * 1024,
      isRecoverable: recover !== undefined,
      onRelease: options.onRelease ?? (() => {}),
    }
    const waiters = new WaitQueue(store, maxWaiters, options.onWaitersChange)

    app.decorateRequest('idempotency', null)
    app.decorateRequest(storeOrRelease, null)
    app.addHook('preClose', async () => waiters.close())

    app.addHook('preHandler', async function idempotency(request, reply) {
      if (request.is404 || !methods.includes(request.method)) return
      const key = readKey(request, required)
      if (key === undefined) return
      const owner = scope?.(request)
      const current = createIdempotentRequest({
        key,
        // No key contains a comma: keys of different scopes never collide.
        storeKey: owner === undefined ? key : `${encodeURIComponent(owner)},${key}`,
        fingerprint: computeFingerprint(request),
        mismatchStatus,
      })
      request.idempotency = current

      let claim = await claimOrRecover(current, request)
      const timeoutMs = readWaitTimeout(request, reply)
      if (claim.state === 'in_flight' && timeoutMs > 0) {
        claim = await waitForResponse(current, request, reply, timeoutMs, claim)
      }
      switch (claim.state) {
        case 'new':
          current.outcome = 'new'
          request[storeOrRelease] = startLease(current, request, reply, lease)
          return
        case 'unclaimed':
          current.outcome = 'new'
          return
        case 'completed': {
          const { statusCode, headers, body } = claim.response
          return reply.code(statusCode).headers(headers).send(body)
        }
        case 'mismatch':
          throw refuseMismatch(current)
        case 'in_flight':
          throw refuseInProgress(
            current,
            computeRetryAfterSeconds(claim.remainingMs, store.leaseMs),
          )
      }
    })

    app.addHook('onSend', (request, reply, payload, done) => {
      const { idempotency } = request
      if (idempotency && isReplay(idempotency)) reply.header('idempotency-replayed', 'true')
      request[storeOrRelease]?.(payload)
      done()
    })

    /** @throws {Problem} `bad-request` */
    function computeFingerprint(request: FastifyRequest): string {
      try {
        return fingerprint(request)
      } catch (error) {
        request.log.debug({ err: error }, 'the request has no fingerprint')
        throw problems.noFingerprint()
      }
    }

    /** Claims the key; a request is refused only if the durable record has no response for it. */
    async function claimOrRecover(
      current: IdempotentRequest,
      request: FastifyRequest,
    ): Promise<ClaimResult> {
      const claim = await claimKey(current, request)
      if (claim.state === 'completed') current.outcome = 'replayed_cache'
      if (claim.state !== 'in_flight' && claim.state !== 'mismatch') return claim
      if (!recover) return claim
      // The claim may be that of a dead process, or of a body that is about to be refused.
      const recovered = await recover(current.key, request).catch((error) => {
        if (claim.state === 'mismatch' && claim.isCompleted) return undefined // refused in any case
        throw error
      })
      if (recovered === undefined) return claim
      confirmReplay(current, recovered)
      return { state: 'completed', response: recovered.response }
    }

    /** @throws {Problem} `store-unavailable`, if only the store can keep the request to one run */
    async function claimKey(
      current: IdempotentRequest,
      request: FastifyRequest,
    ): Promise<ClaimResult> {
      const { storeKey, fingerprint, token } = current
      const claim = store.claim(storeKey, fingerprint, token)
      if ('state' in claim) return claim
      try {
        return await withDeadline(claim, storeTimeoutMs, 'the idempotency store did not respond')
      } catch (error) {
        request.log.debug({ err: error }, 'the key could not be claimed')
        // A claim that failed may exist all the same: its lease is renewed and ended like any other.
        if (recover) return { state: error instanceof ForeignRecordError ? 'unclaimed' : 'new' }
        void releaseUncertainClaim(claim, current, request)
        throw problems.storeUnavailable()
      }
    }

    /** A claim that failed, or was too late, may have been made; a release must not overtake it. */
    async function releaseUncertainClaim(
      claim: Promise<Claim>,
      { storeKey, token }: IdempotentRequest,
      request: FastifyRequest,
    ): Promise<void> {
      await claim.catch(() => {})
      await store.release(storeKey, token).catch((error) => {
        request.log.debug({ err: error }, 'the claim could not be released')
      })
    }

    /** Reads how long this request waits for the first one, in ms; its own preference comes first. */
    function readWaitTimeout(request: FastifyRequest, reply: FastifyReply): number {
      const preferred = parsePreferredWait(request.headers.prefer)
      if (preferred === undefined) return waitMs
      const seconds = Math.min(preferred, MAX_WAIT_SECONDS)
      reply.header('preference-applied', `wait=${seconds}`)
      return seconds * 1000
    }

    /**
     * Waits for the response of the first request; if that fails, claims the key itself.
     *
     * @param inFlight the result if there is no place to wait
     */
    async function waitForResponse(
      current: IdempotentRequest,
      request: FastifyRequest,
      reply: FastifyReply,
      timeoutMs: number,
      inFlight: ClaimResult,
    ): Promise<ClaimResult> {
      const waiter = await waiters.add(current.storeKey, timeoutMs)
      if (waiter === undefined) return inFlight
      const onClose = () => waiter.end()
      reply.raw.once('close', onClose)
      if (reply.raw.closed) waiter.end() // the client disconnected before the line above
      try {
        return await claimWhenFree(current, request, waiter)
      } finally {
        reply.raw.off('close', onClose)
        waiter.remove()
      }
    }

    async function claimWhenFree(
      current: IdempotentRequest,
      request: FastifyRequest,
      waiter: Waiter,
    ): Promise<ClaimResult> {
      for (let isWaiting = true; ; isWaiting = await waiter.waitForChange()) {
        const claim = await claimOrRecover(current, request)
        if (claim.state === 'completed') current.outcome = 'waited'
        if (claim.state !== 'in_flight' || !isWaiting) return claim
      }
    }
  },
  { name: '@order-once/idempotency', fastify: '5.x' },
)

/** @throws {Problem} `idempotency-key-missing` or `idempotency-key-invalid` */
function readKey(request: FastifyRequest, required: boolean): string | undefined {
  const header = request.headers['idempotency-key']
  if (header === undefined) {
    if (!required) return undefined
    throw problems.keyMissing()
  }
  const key = parseIdempotencyKey(String(header))
  if (key === undefined) throw problems.keyInvalid()
  return key
}

function fingerprintParsedRequest(request: FastifyRequest): string {
  const { method, routeOptions, url, params, query, body } = request
  return fingerprintRequest({ method, path: routeOptions.url ?? url, params, query, body })
}
