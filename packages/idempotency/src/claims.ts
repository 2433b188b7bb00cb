/** Claims keys: finds out whether the handler runs, a response is replayed or the request is refused. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { awaitStore } from './call-store.ts'
import { DeadlineError } from './deadline.ts'
import { confirmReplay, type IdempotentRequest } from './idempotent-request.ts'
import type { CompleteOptions } from './options.ts'
import { parsePreferredWait } from './prefer-header.ts'
import { problems } from './problems.ts'
import type { Releases } from './releases.ts'
import type { ResponseWriter } from './response-writer.ts'
import type { ReportStoreError } from './store-errors.ts'
import { type Claim, ForeignRecordError } from './stores/store.ts'
import type { Waiter, WaitQueue } from './wait-queue.ts'

/** The longest wait that a client is granted: proxies end longer ones. */
export const MAX_WAIT_SECONDS = 30

/** What came of a claim. */
export type ClaimResult =
  | Claim
  /** the handler runs without a claim, and `recover` protects the key */
  | { state: 'unclaimed' }
  /** `recover` has rebuilt the response, as the handler would make it */
  | { state: 'recovered'; response: Extract<Claim, { state: 'completed' }>['response'] }

export interface ClaimerParts {
  options: CompleteOptions
  waiters: WaitQueue
  releases: Releases
  responses: ResponseWriter
  reportError: ReportStoreError
}

/** Claims the key of a request; waits for the response of the first request, if its client wants that. */
export type ClaimKey = (
  current: IdempotentRequest,
  request: FastifyRequest,
  reply: FastifyReply,
) => Promise<ClaimResult>

/**
 * Creates the function that claims keys.
 *
 * @returns a function that throws a `Problem` `store-unavailable` if only the store can keep the request to
 * one run, and what `recover` throws
 */
export function createClaimer(parts: ClaimerParts): ClaimKey {
  const { waiters, releases, responses, reportError } = parts
  const { store, recover, storeTimeoutMs, waitMs } = parts.options

  /** Claims the key; a request is refused only if the durable record has no response for it. */
  async function claimOrRecover(
    current: IdempotentRequest,
    request: FastifyRequest,
  ): Promise<ClaimResult> {
    const result = claimOnce(current, request)
    // A result that is there already is not awaited: see docs/performance.md.
    const claim = result instanceof Promise ? await result : result
    if (claim.state === 'completed') current.outcome = 'replayed_cache'
    if (claim.state !== 'in_flight' && claim.state !== 'mismatch') return claim
    if (!recover) return claim
    // The claim may be that of a dead process, or of a body that is about to be refused.
    const recovered = await recover(current.storeKey, request).catch((error) => {
      if (claim.state === 'mismatch' && claim.isCompleted) return undefined // refused in any case
      throw error
    })
    if (recovered === undefined) return claim
    confirmReplay(current, recovered.fingerprint, recovered.listChanges)
    return { state: 'recovered', response: recovered.response }
  }

  /** Claims the key once. @returns a promise, unless this process has the result in memory */
  function claimOnce(
    current: IdempotentRequest,
    request: FastifyRequest,
  ): ClaimResult | Promise<ClaimResult> {
    const { storeKey, fingerprint, token } = current
    const found = responses.find(storeKey, fingerprint)
    if (found) return found
    try {
      const claim = store.claim(storeKey, fingerprint, token, performance.now() + storeTimeoutMs)
      return 'state' in claim ? claim : awaitClaim(claim, current, request)
    } catch (error) {
      return awaitClaim(Promise.reject(error), current, request)
    }
  }

  /**
   * Waits for the result of the store, and handles its failure.
   *
   * @throws {Problem} `store-unavailable`, if only the store can keep the request to one run
   */
  async function awaitClaim(
    claim: Promise<Claim>,
    current: IdempotentRequest,
    request: FastifyRequest,
  ): Promise<ClaimResult> {
    try {
      return await awaitStore(claim, storeTimeoutMs)
    } catch (error) {
      reportError(request.log, error, 'the key could not be claimed')
      if (recover) {
        if (error instanceof DeadlineError) releases.addLateClaim(claim, current)
        // A claim that failed may exist all the same: its lease is renewed and ended like any other.
        return { state: error instanceof ForeignRecordError ? 'unclaimed' : 'new' }
      }
      void releases.releaseUncertain(claim, current, request.log)
      throw problems.storeUnavailable()
    }
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
      if (claim.state === 'completed' || claim.state === 'recovered') current.outcome = 'waited'
      if (claim.state !== 'in_flight' || !isWaiting) return claim
    }
  }

  async function claimOrWait(
    current: IdempotentRequest,
    request: FastifyRequest,
    reply: FastifyReply,
  ): Promise<ClaimResult> {
    const claim = await claimOrRecover(current, request)
    const timeoutMs = readWaitTimeout(request, reply)
    if (claim.state !== 'in_flight' || timeoutMs === 0) return claim
    return waitForResponse(current, request, reply, timeoutMs, claim)
  }

  return function claimKey(current, request, reply) {
    const mayWait = waitMs > 0 || request.headers.prefer !== undefined
    return mayWait ? claimOrWait(current, request, reply) : claimOrRecover(current, request)
  }
}
