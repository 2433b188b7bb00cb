/** Responses that the store has failed to keep, until it keeps them. */
import type { FastifyBaseLogger } from 'fastify'
import { BackOff } from './back-off.ts'
import { withDeadline } from './deadline.ts'
import type { IdempotentRequest } from './idempotent-request.ts'
import { claimCompleted, estimateBytes } from './stores/response-cache.ts'
import type { Claim, CompletedRequest, IdempotencyStore } from './stores/store.ts'

/** About 20 000 small responses: more would endanger the process while its store is down. */
const MAX_BYTES = 16 * 1024 * 1024

export interface UnstoredResponsesOptions {
  store: IdempotencyStore
  /** how long `close` waits, in ms */
  closeTimeoutMs: number
  /** called for each response whose first write has failed */
  onWriteFailure: () => void
  /** called for each response that is given up */
  onGiveUp: () => void
}

/**
 * Keeps responses in memory and tries to store them again, so that no repeat runs the handler again
 * because one write has failed. Their claims are renewed meanwhile.
 */
export class UnstoredResponses {
  readonly #options: UnstoredResponsesOptions
  readonly #responses = new Map<string, CompletedRequest>()
  readonly #pending = new Set<Promise<void>>()
  readonly #backOff = new BackOff()
  #bytes = 0
  #isClosed = false

  constructor(options: UnstoredResponsesOptions) {
    this.#options = options
  }

  /** Finds the response of a key, as a claim would. */
  find(storeKey: string, fingerprint: string): Claim | undefined {
    if (this.#responses.size === 0) return undefined
    const completed = this.#responses.get(storeKey)
    return completed && claimCompleted(completed, fingerprint)
  }

  /** Keeps a response whose first write has failed, and stores it as soon as the store allows. */
  add(request: IdempotentRequest, completed: CompletedRequest, log: FastifyBaseLogger): void {
    this.#options.onWriteFailure()
    const bytes = estimateBytes(request.storeKey, completed)
    if (this.#bytes + bytes > MAX_BYTES) {
      log.error('a response is not stored: too many others are not stored either')
      this.#options.onGiveUp()
      return
    }
    log.warn('a response could not be stored; trying again')
    this.#bytes += bytes
    this.#responses.set(request.storeKey, completed)
    const pending = this.#store(request, completed, log).finally(() => {
      this.#bytes -= bytes
      this.#responses.delete(request.storeKey)
      this.#pending.delete(pending)
    })
    this.#pending.add(pending)
  }

  /**
   * Waits until all responses are stored, for at most `closeTimeoutMs`, and reports those that are lost.
   */
  async close(log: FastifyBaseLogger): Promise<void> {
    if (this.#pending.size > 0) {
      const { closeTimeoutMs } = this.#options
      const stored = Promise.all(this.#pending)
      await withDeadline(stored, closeTimeoutMs, 'the responses could not be stored').catch(() => {
        const count = this.#pending.size
        log.error(`${count} responses are lost: a repeat of their requests runs the handler again`)
      })
    }
    this.#isClosed = true
    this.#backOff.end()
  }

  async #store(
    request: IdempotentRequest,
    completed: CompletedRequest,
    log: FastifyBaseLogger,
  ): Promise<void> {
    const tryToStore = () => this.#tryToStore(request, completed)
    if (await this.#backOff.repeat(tryToStore, this.#options.store.ttlMs)) return
    if (!this.#isClosed) {
      log.error('a response was not stored: a repeat of its request may run the handler again')
    }
    this.#options.onGiveUp()
  }

  /** @returns false if another run has the key @throws if the store fails */
  async #tryToStore(request: IdempotentRequest, completed: CompletedRequest): Promise<boolean> {
    const { store } = this.#options
    const { storeKey, fingerprint, token } = request
    // A claim with the same token renews the lease, and shows a write whose reply was lost.
    const claim = await store.claim(storeKey, fingerprint, token)
    if (claim.state === 'new') await store.complete(storeKey, token, completed)
    return claim.state === 'new' || claim.state === 'completed'
  }
}
