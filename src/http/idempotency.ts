import type { FastifyReply, FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { withDeadline } from '../deadline.ts'
import { fingerprintOf } from '../idempotency/fingerprint.ts'
import { parseIdempotencyKey } from '../idempotency/key.ts'
import type { AnsweredRequest, Claim, IdempotencyStore } from '../idempotency/store.ts'
import { WaitingRoom } from '../idempotency/waiting-room.ts'
import { headerLines } from './header-lines.ts'
import { IdempotentRequest } from './idempotent-request.ts'
import { preferredWait } from './prefer.ts'
import { Problem } from './problem.ts'
import {
  checkReplayedHeaders,
  DEFAULT_REPLAYED_HEADERS,
  replayedHeadersOf,
} from './replayed-headers.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** set once the key has been read; null on a request that the plugin lets pass */
    idempotency: IdempotentRequest | null
    [settle]: ((payload?: unknown) => void) | null
  }
}

/**
 * Under which a request carries what ends its hold on its key, out of reach of handlers. (Not in a
 * WeakMap: what is held there outlives many collections, at a sixth of an order's CPU.)
 */
const settle = Symbol('settle')

export interface IdempotencyOptions {
  store: IdempotencyStore
  /** whether a request without a key is refused, rather than handled without protection; true */
  required?: boolean
  /** the methods that are protected; POST and PATCH */
  methods?: string[]
  /** what the key belongs to, such as a tenant: the same key in two scopes is two keys; none */
  scope?: (request: FastifyRequest) => string
  /** what tells the same request; method, route, parameters, query and parsed body */
  fingerprint?: (request: FastifyRequest) => string
  /** whether an answer of this status is remembered, rather than its key freed; below 500 */
  remembers?: (statusCode: number) => boolean
  /** the largest body that is remembered, in bytes; 1 MiB */
  maxBodyBytes?: number
  /** the headers of an answer that its replays repeat; `DEFAULT_REPLAYED_HEADERS` */
  replayedHeaders?: string[]
  /** 409, or the 422 of draft-ietf-httpapi-idempotency-key-header-07 §2.7; 409 */
  mismatchStatus?: 409 | 422
  /** how long a claim may take, in ms; 1000 */
  storeTimeoutMs?: number
  /**
   * Looks for the key where the handler writes, if that is durable and refuses a key twice. With it,
   * requests go on without the store when it fails, and none is refused that was answered before.
   */
  recover?: (key: string, request: FastifyRequest) => Promise<AnsweredRequest | undefined>
  /** how long a duplicate waits for the request ahead of it unless it says otherwise, in ms; 0 */
  waitMs?: number
  /** where duplicates wait; a room of its own for 1000 */
  waitingRoom?: WaitingRoom
}

/** A client that asked for more is told, in `Preference-Applied`, that it got this. */
export const MAX_WAIT_SECONDS = 30

/** Three chances to renew a lease before it ends. */
const RENEWALS_PER_LEASE = 3

/**
 * Runs the handlers behind it once a key: claims the key before the handler, remembers its answer
 * after it, and replays that answer to every repeat (draft-ietf-httpapi-idempotency-key-header-07).
 * Register it in the scope of the routes it is to protect.
 */
export const idempotency = fastifyPlugin(async (app, options: IdempotencyOptions) => {
  const { store, recover, scope, required = true, mismatchStatus = 409 } = options
  const { methods = ['POST', 'PATCH'], fingerprint = defaultFingerprint } = options
  const { remembers = (statusCode) => statusCode < 500, maxBodyBytes = 1024 * 1024 } = options
  const { storeTimeoutMs = 1_000, waitMs = 0, waitingRoom = new WaitingRoom(store) } = options
  const replayedHeaders = checkReplayedHeaders(options.replayedHeaders ?? DEFAULT_REPLAYED_HEADERS)

  app.decorateRequest('idempotency', null)
  app.decorateRequest(settle, null)
  app.addHook('preClose', async () => waitingRoom.close())

  app.addHook('preHandler', async (request, reply) => {
    if (!methods.includes(request.method)) return
    const key = keyOf(request, required)
    if (key === undefined) return
    // No key has a comma in it: the key of a scope is never another's.
    const storeKey = scope ? `${encodeURIComponent(scope(request))},${key}` : key
    const current = new IdempotentRequest(
      key,
      storeKey,
      fingerprintOrRefusal(request),
      mismatchStatus,
    )
    request.idempotency = current

    let claim = await look(current, request)
    const patienceMs = patienceOf(request, reply)
    if (claim.state === 'in_flight' && patienceMs > 0) {
      claim = await wait(current, request, reply, patienceMs)
    }
    switch (claim.state) {
      case 'new':
        current.outcome = 'new'
        request[settle] = hold(current, request, reply)
        return
      case 'completed':
        return reply
          .code(claim.answer.statusCode)
          .headers(claim.answer.headers)
          .send(claim.answer.body)
      case 'mismatch':
        throw current.mismatch()
      case 'in_flight':
        throw current.inProgress()
    }
  })

  app.addHook('onSend', (request, reply, payload, done) => {
    if (request.idempotency?.isReplay) reply.header('idempotency-replayed', 'true')
    request[settle]?.(payload)
    done()
  })

  function fingerprintOrRefusal(request: FastifyRequest): string {
    try {
      return fingerprint(request)
    } catch (error) {
      request.log.debug({ err: error }, 'the request has no fingerprint')
      throw new Problem('bad-request', 'The body has no canonical form: is a number too large?')
    }
  }

  /** Claims the key; what stands in the way is refused only if the durable record agrees. */
  async function look(current: IdempotentRequest, request: FastifyRequest): Promise<Claim> {
    const claim = await ask(current, request)
    if (claim.state === 'completed') current.outcome = 'replayed_cache'
    if (claim.state === 'new' || claim.state === 'completed' || !recover) return claim
    if (claim.state === 'mismatch' && claim.isAnswered) return claim
    // It may be the mark of a dead process, or of a wrong body whose refusal is on its way.
    const recovered = await recover(current.key, request)
    if (recovered === undefined) return claim
    current.foundInDatabase(recovered.fingerprint)
    return { state: 'completed', answer: recovered.answer }
  }

  /** @throws {Problem} `store-unavailable`, if nothing but the store can keep the request to once */
  async function ask(current: IdempotentRequest, request: FastifyRequest): Promise<Claim> {
    const { storeKey, fingerprint, token } = current
    try {
      const claim = store.claim(storeKey, fingerprint, token)
      if ('state' in claim) return claim
      return await withDeadline(claim, storeTimeoutMs, 'the store did not answer in time')
    } catch (error) {
      request.log.debug({ err: error }, 'the key could not be claimed')
      if (recover) return { state: 'new' }
      // The claim may have been made all the same.
      store.abandon(storeKey, token).catch(() => {})
      throw new Problem(
        'store-unavailable',
        'Idempotency-Key cannot be checked now; repeat later.',
        { headers: { 'retry-after': '1' } },
      )
    }
  }

  /** How long this request waits for one ahead of it, in ms; its own preference comes first. */
  function patienceOf(request: FastifyRequest, reply: FastifyReply): number {
    const preferred = preferredWait(request.headers.prefer)
    if (preferred === undefined) return waitMs
    const seconds = Math.min(preferred, MAX_WAIT_SECONDS)
    reply.header('preference-applied', `wait=${seconds}`)
    return seconds * 1000
  }

  async function wait(
    current: IdempotentRequest,
    request: FastifyRequest,
    reply: FastifyReply,
    ms: number,
  ): Promise<Claim> {
    const waiter = await waitingRoom.enter(current.storeKey, ms)
    if (waiter === undefined) return { state: 'in_flight' }
    const onGone = () => waiter.end()
    reply.raw.once('close', onGone)
    if (reply.raw.closed) waiter.end() // while it was admitted
    try {
      for (let waiting = true; ; waiting = await waiter.changed()) {
        const claim = await look(current, request)
        if (claim.state === 'completed') current.outcome = 'waited'
        if (claim.state !== 'in_flight' || !waiting) return claim
      }
    } finally {
      reply.raw.off('close', onGone)
      waiter.leave()
    }
  }

  /**
   * Keeps the claim while the handler runs.
   *
   * @returns what ends it, with the payload of the answer: remembers the answer or frees the key.
   * The client waits for neither.
   */
  function hold(current: IdempotentRequest, request: FastifyRequest, reply: FastifyReply) {
    const { storeKey, fingerprint, token } = current
    let settled = false

    // Where nothing else is durable, a repeat after the lease would run the handler again.
    const level = recover ? 'debug' : 'warn'
    const onFailure = (error: unknown) =>
      request.log[level]({ err: error }, 'the store does not know how the request ended')
    const renew = async () => store.claim(storeKey, fingerprint, token)
    const abandon = () => void store.abandon(storeKey, token).catch(onFailure)

    const heartbeat = setInterval(async () => {
      // Taken from Fastify by the handler, and closed without an answer.
      if (reply.sent && reply.raw.closed) return giveUp()
      const claim = await renew().catch(onFailure)
      if (settled && claim?.state === 'new') abandon()
      if (!claim || claim.state === 'new') return
      clearInterval(heartbeat)
      request.log.warn('the lease was lost to another request while the handler ran')
    }, store.leaseMs / RENEWALS_PER_LEASE).unref()

    /** @returns whether this call ended it, rather than one before */
    function end(): boolean {
      if (settled) return false
      settled = true
      clearInterval(heartbeat)
      reply.raw.off('close', onClose)
      return true
    }

    function giveUp(): void {
      if (end()) abandon()
    }

    function settleWith(sent?: unknown): void {
      const payload = sent ?? '' // 204 has none
      if (!isRemembered(payload)) {
        giveUp()
        return
      }
      if (!end()) return
      const headers = replayedHeadersOf(reply, replayedHeaders)
      const answer = { statusCode: reply.statusCode, headers, body: payload }
      store.complete(storeKey, token, { fingerprint, answer }).catch(onFailure)
    }

    /** Not streams, which are read once; nor a refusal for the sake of another request's key. */
    function isRemembered(payload: unknown): payload is string | Buffer {
      return (
        (typeof payload === 'string' || Buffer.isBuffer(payload)) &&
        Buffer.byteLength(payload) <= maxBodyBytes &&
        remembers(reply.statusCode) &&
        current.outcome !== 'mismatch'
      )
    }

    // A client that goes away does not stop its request; a handler that gives up the reply does.
    const onClose = () => {
      if (reply.sent) giveUp()
    }
    reply.raw.once('close', onClose)
    return settleWith
  }
})

/** @throws {Problem} */
function keyOf(request: FastifyRequest, required: boolean): string | undefined {
  const given = headerLines(request, 'idempotency-key')
  if (given.length === 0) {
    if (!required) return undefined
    throw new Problem('idempotency-key-missing', 'Idempotency-Key is required.')
  }
  if (given.length > 1) {
    throw new Problem('idempotency-key-invalid', 'Idempotency-Key must be sent exactly once.')
  }
  const key = parseIdempotencyKey(given[0] ?? '')
  if (key === undefined) {
    throw new Problem(
      'idempotency-key-invalid',
      'Idempotency-Key must be 1 to 255 visible ASCII characters, without double quotes, commas and backslashes.',
    )
  }
  return key
}

function defaultFingerprint(request: FastifyRequest): string {
  const { method, routeOptions, url, params, query, body } = request
  return fingerprintOf({ method, path: routeOptions.url ?? url, params, query, body })
}
