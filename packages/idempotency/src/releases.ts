/** Releases of keys, which are repeated until they succeed. */
import type { FastifyBaseLogger } from 'fastify'
import { BackOff } from './back-off.ts'
import { NotSentError } from './batcher.ts'
import { withDeadline } from './deadline.ts'
import type { IdempotentRequest } from './idempotent-request.ts'
import type { ReportStoreError } from './store-errors.ts'
import type { Claim, IdempotencyStore } from './stores/store.ts'

/** A key that stays claimed without a run refuses its retries for a whole lease. */
export class Releases {
  readonly #store: IdempotencyStore
  readonly #timeoutMs: number
  readonly #reportError: ReportStoreError
  readonly #backOff = new BackOff()

  /** @param timeoutMs how long one call to the store may take */
  constructor(store: IdempotencyStore, timeoutMs: number, reportError: ReportStoreError) {
    this.#store = store
    this.#timeoutMs = timeoutMs
    this.#reportError = reportError
  }

  /** Releases the claim. If the store fails, repeats it with back-off, for one lease. */
  async release(request: IdempotentRequest, log: FastifyBaseLogger): Promise<void> {
    const { storeKey, token } = request
    const callStore = async () => this.#store.release(storeKey, token)
    const release = () => withDeadline(callStore(), this.#timeoutMs, 'the key was not released')
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
    await this.release(request, log)
  }

  /** Ends all repetitions. */
  close(): void {
    this.#backOff.end()
  }
}
