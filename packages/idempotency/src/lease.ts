/** Keeps a claim while the handler runs, and ends it with the response. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { IdempotentRequest } from './idempotent-request.ts'
import { readReplayedHeaders } from './replayed-headers.ts'
import type { IdempotencyStore } from './stores/store.ts'

/** Leaves two chances to renew a lease after a renewal that failed. */
const RENEWALS_PER_LEASE = 3

/** How late a renewal may arrive: its process or the store may be busy. */
const MAX_RENEWAL_DELAY_MS = 500

export interface LeaseOptions {
  store: IdempotencyStore
  /** whether a response with this status is stored */
  remembers: (statusCode: number) => boolean
  maxBodyBytes: number
  /** whether a durable record protects the key, so that a failure of the store is no warning */
  isRecoverable: boolean
  onRelease: () => void
}

/** Ends a lease: stores the response with this payload, or releases the key. */
export type StoreOrRelease = (payload: unknown) => void

/**
 * Renews the claim until the request has its response, which the returned function stores. The client
 * does not wait for the store.
 */
export function startLease(
  current: IdempotentRequest,
  request: FastifyRequest,
  reply: FastifyReply,
  options: LeaseOptions,
): StoreOrRelease {
  const { store, remembers, maxBodyBytes, isRecoverable, onRelease } = options
  const { storeKey, fingerprint, token } = current
  let state: 'active' | 'completed' | 'released' = 'active'

  // Where nothing else is durable, a repeat after the lease would run the handler again.
  const level = isRecoverable ? 'debug' : 'warn'
  const logFailure = (error: unknown) =>
    request.log[level]({ err: error }, 'the idempotency store could not be updated')

  const heartbeat = setInterval(async () => {
    // The handler took the reply from Fastify, and closed it without a response.
    if (reply.sent && reply.raw.closed) return releaseKey()
    try {
      const isRenewed = await store.renew(storeKey, fingerprint, token)
      // The store may have processed the release first: then the renewal has claimed the key again.
      // (After a completion nothing is released: the release could be processed before it.)
      if (state === 'released' && isRenewed) await store.release(storeKey, token)
      if (state !== 'active' || isRenewed) return
      clearInterval(heartbeat)
      request.log.warn('the lease was lost to another request while the handler ran')
    } catch (error) {
      logFailure(error)
    }
  }, store.leaseMs / RENEWALS_PER_LEASE).unref()

  // A client that disconnects does not stop its request; a handler that closes the reply does.
  const onClose = () => {
    if (reply.sent) releaseKey()
  }
  reply.raw.once('close', onClose)

  /** @returns whether this call ended the lease, and no earlier one */
  function end(as: 'completed' | 'released'): boolean {
    if (state !== 'active') return false
    state = as
    clearInterval(heartbeat)
    reply.raw.off('close', onClose)
    return true
  }

  function releaseKey(): void {
    if (!end('released')) return
    onRelease()
    store.release(storeKey, token).catch(logFailure)
  }

  /** A stream can be read only once; a mismatch belongs to another request's key. */
  function isStorable(payload: unknown): payload is string | Buffer {
    return (
      (typeof payload === 'string' || Buffer.isBuffer(payload)) &&
      Buffer.byteLength(payload) <= maxBodyBytes &&
      remembers(reply.statusCode) &&
      current.outcome !== 'mismatch'
    )
  }

  return function storeOrRelease(sent) {
    const body = sent ?? '' // a 204 has no payload
    if (!isStorable(body)) return releaseKey()
    if (!end('completed')) return
    const headers = readReplayedHeaders(reply, store.replayedHeaders)
    const response = { statusCode: reply.statusCode, headers, body }
    store.complete(storeKey, token, { fingerprint, response }).catch(logFailure)
  }
}

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
