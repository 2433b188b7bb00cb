import { randomUUID } from 'node:crypto'
import { Problem } from './problem.ts'

/** How a request with a key ended, for the log. */
export type Outcome =
  | 'new'
  | 'replayed_cache'
  | 'replayed_database'
  | 'waited'
  | 'mismatch'
  | 'in_progress'

/** The time in which most requests are done, rounded up to the header's whole seconds. */
const RETRY_AFTER_SECONDS = '1'

/** One request under its key, as the route's handler and the log see it. */
export class IdempotentRequest {
  /** as the client sent it, without quotes */
  readonly key: string
  /** as the store knows it: with the scope, if there is one */
  readonly storeKey: string
  readonly fingerprint: string
  readonly token = randomUUID()
  outcome: Outcome | undefined
  readonly #mismatchStatus: 409 | 422

  constructor(key: string, storeKey: string, fingerprint: string, mismatchStatus: 409 | 422) {
    this.key = key
    this.storeKey = storeKey
    this.fingerprint = fingerprint
    this.#mismatchStatus = mismatchStatus
  }

  get isReplay(): boolean {
    return (
      this.outcome === 'replayed_cache' ||
      this.outcome === 'replayed_database' ||
      this.outcome === 'waited'
    )
  }

  /**
   * For a handler that finds, with its last word, that the request was answered before.
   *
   * @param fingerprint of the request that was answered under this key
   * @throws {Problem} `idempotency-key-reused`, if that was another request
   */
  foundInDatabase(fingerprint: string): void {
    if (fingerprint !== this.fingerprint) throw this.mismatch()
    this.outcome = 'replayed_database'
  }

  mismatch(): Problem {
    this.outcome = 'mismatch'
    return new Problem(
      'idempotency-key-reused',
      'Idempotency-Key was first sent with another request; choose a new key for a new request.',
      { status: this.#mismatchStatus },
    )
  }

  inProgress(): Problem {
    this.outcome = 'in_progress'
    return new Problem(
      'request-in-progress',
      'The same request under this Idempotency-Key is still at work; repeat it later.',
      { headers: { 'retry-after': RETRY_AFTER_SECONDS } },
    )
  }
}
