/** One request under its key, as the route's handler and the log see it. */
import { randomUUID } from 'node:crypto'
import type { Problem } from './problem.ts'
import { problems } from './problems.ts'

/** How a request with a key ended. */
export type Outcome =
  | 'new'
  | 'replayed_cache'
  | 'replayed_database'
  | 'waited'
  | 'mismatch'
  | 'in_progress'

/** A request with a key, while it is processed. Handlers get it as `request.idempotency`. */
export interface IdempotentRequest {
  /** as the client sent it, without quotes */
  readonly key: string
  /** the name of the store's record: the key, with its scope if there is one */
  readonly storeKey: string
  readonly fingerprint: string
  /** the fencing token of this run */
  readonly token: string
  /** the status of a refusal because of another fingerprint */
  readonly mismatchStatus: 409 | 422
  outcome: Outcome | undefined
}

/** Adds a new fencing token to a request with a key. Its outcome is not known yet. */
export function createIdempotentRequest(
  request: Pick<IdempotentRequest, 'key' | 'storeKey' | 'fingerprint' | 'mismatchStatus'>,
): IdempotentRequest {
  const { key, storeKey, fingerprint, mismatchStatus } = request
  return { key, storeKey, fingerprint, mismatchStatus, token: randomUUID(), outcome: undefined }
}

/** Whether the response is a replay. */
export function isReplay({ outcome }: IdempotentRequest): boolean {
  return outcome === 'replayed_cache' || outcome === 'replayed_database' || outcome === 'waited'
}

/**
 * For a handler whose insert finds that the key has a row already: the response that it sends now is a
 * replay.
 *
 * @param fingerprint of the request that the row was made by
 * @param listChanges lists the members of the body that differ from those of that request
 * @throws {Problem} `idempotency-key-reused`, if that was another request
 */
export function confirmReplay(
  request: IdempotentRequest,
  fingerprint: string,
  listChanges?: () => string[],
): void {
  if (fingerprint !== request.fingerprint) throw refuseMismatch(request, listChanges?.())
  request.outcome = 'replayed_database'
}

/** Sets the outcome. @returns the refusal of a request whose key belongs to another */
export function refuseMismatch(request: IdempotentRequest, changed?: string[]): Problem {
  request.outcome = 'mismatch'
  return problems.keyReused(request.mismatchStatus, changed)
}

/** Sets the outcome. @returns the refusal of a duplicate of a request in flight */
export function refuseInProgress(request: IdempotentRequest, retryAfterSeconds: number): Problem {
  request.outcome = 'in_progress'
  return problems.requestInProgress(retryAfterSeconds)
}
