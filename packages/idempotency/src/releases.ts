/** Releases of keys, which are repeated until they succeed. */
import type { FastifyBaseLogger } from 'fastify'
import { BackOff } from './back-off.ts'
import { NotSentError } from './batcher.ts'
import { callStore } from './call-store.ts'
import type { IdempotentRequest } from './idempotent-request.ts'
import type { ReportStoreError } from './store-errors.ts'
import type { Claim, IdempotencyStore } from './stores/store.ts'

/** A key that stays claimed without a run refuses its retries for a whole lease. */
export class Releases {
  readonly #store: IdempotencyStore
  readonly #timeoutMs: number
  readonly #reportError: ReportStoreError
  readonly #lateClaims = new WeakMap<IdempotentRequest, Promise<Claim>>()
  readonly #backOff = new BackOff()

  /** @param timeoutMs how long one call to the store may take */
  constructor(store: IdempotencyStore, timeoutMs: number, reportError: ReportStoreError) {
    this.#store = store
    this.#timeoutMs = timeoutMs
    this.#reportError = reportError
  }

  /** Adds a claim that had no result in time, and whose request goes on: it may still be made. */
  addLateClaim(claim: Promise<Claim>, request: IdempotentRequest): void {
    this.#lateClaims.set(request, claim)
  }

  /**
   * Releases the claim. If the store fails, repeats it with back-off, for one lease. A late claim is released again
   * once it has its result.
   */
  async release(request: IdempotentRequest, log: FastifyBaseLogger): Promise<void> {
    await this.#releaseNow(request, log)
    const lateClaim = this.#lateClaims.get(request)
    if (lateClaim) await this.releaseUncertain(lateClaim, request, log)
  }

  async #releaseNow(request: IdempotentRequest, log: FastifyBaseLogger): Promise<void> {
    const { storeKey, token } = request
    const release = () => callStore(() => this.#store.release(storeKey, token), this.#timeoutMs)
    try {
      await release()
    } catch (error) {
      this.#reportError(log, error, 'a key could not be released; trying again')
      await this.#backOff.repeat(release, this.#store.leaseMs)
    }
  }

  /**
   * Releases a claim that failed or was too late, and may have been made all the same: once it has its
   * result, so that the release cannot overtake it.
   */
  async releaseUncertain(
    claim: Promise<Claim>,
    request: IdempotentRequest,
    log: FastifyBaseLogger,
  ): Promise<void> {
    try {
      await claim
    } catch (error) {
      if (error instanceof NotSentError) return
    }
    await this.#releaseNow(request, log)
  }

  /** Ends all repetitions. */
  close(): void {
    this.#backOff.end()
  }
}
