/** Writes responses to the store, and tries again those that it has failed to keep. */
import type { FastifyBaseLogger } from 'fastify'
import { BackOff } from './back-off.ts'
import { callStore } from './call-store.ts'
import { withDeadline } from './deadline.ts'
import type { IdempotentRequest } from './idempotent-request.ts'
import type { ReportStoreError } from './store-errors.ts'
import { claimCompleted, estimateBytes } from './stores/response-cache.ts'
import type { Claim, CompletedRequest, IdempotencyStore } from './stores/store.ts'

/** About 20 000 small responses: more would endanger the process while its store is down. */
const MAX_UNSTORED_BYTES = 16 * 1024 * 1024

export interface ResponseWriterOptions {
  store: IdempotencyStore
  /** how long one call to the store may take, in ms, if a failed write is tried again */
  storeTimeoutMs: number
  /** whether a failed write is tried again; if not, a durable record must protect the key */
  retries: boolean
  /** how long `close` waits for responses that are tried again, in ms */
  closeTimeoutMs: number
  reportError: ReportStoreError
  /** called for each response that is tried again */
  onWriteFailure: () => void
  /** called for each response that is given up */
  onGiveUp: () => void
}

/**
 * Keeps a response in memory until the store has it, so that no repeat runs the handler again because one
 * write has failed. Its claim is renewed meanwhile.
 */
export class ResponseWriter {
  readonly #options: ResponseWriterOptions
  readonly #unstored = new Map<string, CompletedRequest>()
  readonly #backOff = new BackOff()
  #unstoredBytes = 0
  #unfinishedWrites = 0
  #onIdle = () => {}
  #isClosed = false

  constructor(options: ResponseWriterOptions) {
    this.#options = options
  }

  /** Finds a response that is not stored yet, as a claim would. */
  find(storeKey: string, fingerprint: string): Claim | undefined {
    if (this.#unstored.size === 0) return undefined
    const completed = this.#unstored.get(storeKey)
    return completed && claimCompleted(completed, fingerprint)
  }

  /** Stores a response. @returns when it is stored or given up; never rejects */
  async write(
    request: IdempotentRequest,
    completed: CompletedRequest,
    log: FastifyBaseLogger,
  ): Promise<void> {
    const { store, storeTimeoutMs, retries, reportError } = this.#options
    this.#unfinishedWrites++
    try {
      const { storeKey, token } = request
      if (retries) await callStore(() => store.complete(storeKey, token, completed), storeTimeoutMs)
      else await store.complete(storeKey, token, completed)
    } catch (error) {
      const message = 'a response could not be stored'
      reportError(log, error, retries ? `${message}; trying again` : message)
      if (retries) await this.#writeLater(request, completed, log)
    }
    if (--this.#unfinishedWrites === 0) this.#onIdle()
  }

  /**
   * Waits until all responses are stored, for at most `closeTimeoutMs`, and reports those that are lost.
   * Without retries, it does not wait.
   */
  async close(log: FastifyBaseLogger): Promise<void> {
    const { retries, closeTimeoutMs } = this.#options
    if (retries && this.#unfinishedWrites > 0) {
      const idle = new Promise<void>((resolve) => {
        this.#onIdle = resolve
      })
      await withDeadline(idle, closeTimeoutMs, 'responses could not be stored').catch(() => {
        log.error(
          `${this.#unfinishedWrites} responses are lost: a repeat of their requests runs the handler again`,
        )
      })
    }
    this.#isClosed = true
    this.#backOff.end()
  }

  async #writeLater(
    request: IdempotentRequest,
    completed: CompletedRequest,
    log: FastifyBaseLogger,
  ): Promise<void> {
    const { store, onWriteFailure, onGiveUp } = this.#options
    const bytes = estimateBytes(request.storeKey, completed)
    onWriteFailure()
    if (this.#unstoredBytes + bytes > MAX_UNSTORED_BYTES) {
      log.error('a response is not stored: too many others are not stored either')
      onGiveUp()
      return
    }
    const isLate = this.#isClosed // its write failed after `close` had counted the lost responses
    this.#unstored.set(request.storeKey, completed)
    this.#unstoredBytes += bytes
    const isStored = await this.#backOff.repeat(
      () => this.#tryToWrite(request, completed),
      store.ttlMs,
    )
    this.#unstoredBytes -= bytes
    this.#unstored.delete(request.storeKey)
    if (isStored) return
    if (isLate || !this.#isClosed) {
      log.error('a response was not stored: a repeat of its request may run the handler again')
    }
    onGiveUp()
  }

  /** @returns false if another run has the key @throws if the store fails, or does not respond in time */
  async #tryToWrite(request: IdempotentRequest, completed: CompletedRequest): Promise<boolean> {
    const { store, storeTimeoutMs } = this.#options
    const { storeKey, fingerprint, token } = request
    // A claim with the same token renews the lease, and shows a write whose reply was lost.
    const claim = await callStore(() => store.claim(storeKey, fingerprint, token), storeTimeoutMs)
    if (claim.state === 'new') {
      await callStore(() => store.complete(storeKey, token, completed), storeTimeoutMs)
    }
    return claim.state === 'new' || claim.state === 'completed'
  }
}
