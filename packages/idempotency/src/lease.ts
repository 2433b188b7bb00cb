/** Keeps a claim while the handler runs, and ends it with the response. */
import { finished } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { IdempotentRequest } from './idempotent-request.ts'
import type { Releases } from './releases.ts'
import { isStream } from './replay.ts'
import { readReplayedHeaders } from './replayed-headers.ts'
import type { ResponseWriter } from './response-writer.ts'
import type { ReportStoreError } from './store-errors.ts'
import type { IdempotencyStore } from './stores/store.ts'

/** Leaves two chances to renew a lease after a renewal that failed. */
const RENEWALS_PER_LEASE = 3

/** How late a renewal may arrive: its process or the store may be busy. */
const MAX_RENEWAL_DELAY_MS = 500

/** Why a result of processing is not stored, so that a repeat runs the handler again. */
export type NotRemembered =
  /** the body is a stream, which can be read only once */
  | 'stream'
  /** the body is larger than `maxBodyBytes` */
  | 'too-large'
  /** the handler has taken the reply from Fastify */
  | 'hijacked'
  /** the store has failed for too long */
  | 'not-stored'

export interface LeaseOptions {
  store: IdempotencyStore
  /** whether the response is stored, by its status and headers */
  remembers: (statusCode: number, reply: FastifyReply) => boolean
  maxBodyBytes: number
  releases: Releases
  responses: ResponseWriter
  reportError: ReportStoreError
  onRelease: () => void
  onNotRemembered: (reason: NotRemembered) => void
}

/** The lease of one run. */
export interface Lease {
  /**
   * Stores the response with this payload, or releases the key: once the handler has returned, and a
   * stream is sent. The client does not wait for the store.
   *
   * @param streamIs why a payload that is a stream is not stored
   */
  storeOrRelease(payload: unknown, streamIs?: NotRemembered): void
  /** Runs the handler, and keeps the key until it has returned. */
  run(handler: () => unknown): unknown
}

/** Renews the claim until the request has its response and its handler has returned. */
export function startLease(
  current: IdempotentRequest,
  request: FastifyRequest,
  reply: FastifyReply,
  options: LeaseOptions,
): Lease {
  const { store, remembers, maxBodyBytes, releases, responses, reportError } = options
  const { onRelease, onNotRemembered } = options
  const { storeKey, fingerprint, token } = current
  let state: 'active' | 'completed' | 'released' = 'active'
  let isRunning = false
  let isReleaseDue = false
  let hasResponse = false

  const heartbeat = setInterval(async () => {
    if (isClosedByHandler()) return releaseKey()
    try {
      const isRenewed = await store.renew(storeKey, fingerprint, token)
      // The store may have processed the release first: then the renewal has claimed the key again.
      // (After a completion nothing is released: the release could be processed before it.)
      if (state === 'released' && isRenewed) await releases.release(current, request.log)
      if (state !== 'active' || isRenewed) return
      clearInterval(heartbeat)
      request.log.warn('the lease was lost to another request while the handler ran')
    } catch (error) {
      reportError(request.log, error, 'a lease could not be renewed')
    }
  }, store.leaseMs / RENEWALS_PER_LEASE).unref()

  // A client that disconnects does not stop its request; a handler that closes the reply does.
  const onClose = () => {
    if (isClosedByHandler()) releaseKey()
  }
  reply.raw.once('close', onClose)

  /** The handler has taken the reply from Fastify, and closed it. */
  const isClosedByHandler = () => reply.sent && reply.raw.closed && !hasResponse

  /** @returns whether this call ended the lease, and no earlier one */
  function end(as: 'completed' | 'released'): boolean {
    if (state !== 'active') return false
    state = as
    clearInterval(heartbeat)
    reply.raw.off('close', onClose)
    return true
  }

  /** Releases the key, or leaves it to the end of the handler, which may still do the work of the key. */
  function releaseKey(): void {
    isReleaseDue = true
    if (isRunning || !end('released')) return
    if (!hasResponse && reply.raw.headersSent && isResult()) reportNotRemembered('hijacked')
    onRelease()
    void releases.release(current, request.log)
  }

  /** A mismatch belongs to another request's key, and an unknown path to no route. */
  function isResult(): boolean {
    if (current.outcome === 'mismatch' || request.is404) return false
    return remembers(reply.statusCode, reply)
  }

  function reportNotRemembered(reason: NotRemembered): void {
    request.log.warn(`the response is not stored (${reason}): a repeat runs the handler again`)
    onNotRemembered(reason)
  }

  /** Finds the body to store. @returns undefined, after a report, if there is none */
  function readStorable(payload: unknown, streamIs: NotRemembered): string | Buffer | undefined {
    const body = payload ?? '' // a 204 has no payload
    if (!isResult()) return undefined
    if (isStream(body)) reportNotRemembered(streamIs)
    if (typeof body !== 'string' && !Buffer.isBuffer(body)) return undefined
    if (Buffer.byteLength(body) <= maxBodyBytes) return body
    reportNotRemembered('too-large')
    return undefined
  }

  function storeOrRelease(payload: unknown, streamIs: NotRemembered = 'stream'): void {
    hasResponse = true
    const body = readStorable(payload, streamIs)
    if (body === undefined) {
      // While a stream is being sent, its handler still does the work of the key.
      if (isStream(payload)) finished(reply.raw, releaseKey)
      else releaseKey()
    } else if (end('completed')) {
      const headers = readReplayedHeaders(reply, store.replayedHeaders)
      const response = { statusCode: reply.statusCode, headers, body }
      void responses.write(current, { fingerprint, response }, request.log)
    }
  }

  function endRun(): void {
    isRunning = false
    if (isReleaseDue) releaseKey()
  }

  function endRunWith(result: unknown): void {
    endRun()
    // Fastify sends no empty response to a client that has gone. It is a result all the same.
    if (result === undefined && reply.raw.closed && !hasResponse && !reply.sent) reply.send()
  }

  function run(handler: () => unknown): unknown {
    isRunning = true
    let result: unknown
    try {
      result = handler()
    } catch (error) {
      endRun()
      throw error
    }
    if (result === reply || !isThenable(result)) {
      endRun()
      return result
    }
    // `then` of another thenable, such as a query builder, may run its work once for each call.
    const promise = result instanceof Promise ? result : Promise.resolve(result)
    promise.then(endRunWith, endRun)
    return promise
  }

  return { storeOrRelease, run }
}

const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function'

/**
 * Computes when to repeat a request whose key another one has claimed. A claim that is renewed on time
 * may be completed at any moment. One that was not probably belongs to a dead process: its key is free when
 * the lease ends.
 *
 * @param remainingMs what is left of the lease
 * @returns whole seconds, at least 1
 */
export function computeRetryAfterSeconds(remainingMs: number, leaseMs: number): number {
  const leastIfRenewedMs = leaseMs - leaseMs / RENEWALS_PER_LEASE - MAX_RENEWAL_DELAY_MS
  return remainingMs > leastIfRenewedMs ? 1 : Math.max(1, Math.ceil(remainingMs / 1000))
}
