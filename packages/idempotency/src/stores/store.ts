/** What a store of claims and responses must do. */

/** A response as it is replayed: the same bytes. */
export interface StoredResponse {
  statusCode: number
  headers: Record<string, string | string[]>
  body: string | Buffer
}

/** A request that has its response. */
export interface CompletedRequest {
  fingerprint: string
  response: StoredResponse
  /** lists the members of a body that differ from those of this request; stores do not have it */
  listChanges?: () => string[]
}

/** What a claim found under the key. */
export type Claim =
  /** nothing: the key is claimed for one lease */
  | { state: 'new' }
  /** the same request, completed; `remainingMs`: how long the store will keep it, if it can say */
  | { state: 'completed'; response: StoredResponse; remainingMs?: number }
  /** the same request, in flight elsewhere; `remainingMs`: what is left of the lease of its claim */
  | { state: 'in_flight'; remainingMs: number }
  /** another request, completed or in flight */
  | { state: 'mismatch'; isCompleted: boolean }

/**
 * Keeps which keys are in flight and the responses of those that are completed.
 *
 * **Atomicity.** Each call is one step: of any number of simultaneous claims on a free key, one is
 * `new`.
 *
 * **Fencing.** A token, unique to one run of one request, marks the owner of a claim. An owner whose
 * lease has ended can neither complete nor release its key once another has claimed it.
 *
 * **Expiry.** A claim lasts one lease, from its last renewal; a response lasts its time to live from when
 * it was stored, and no claim extends that. What has expired is as if it had never been.
 *
 * **Loss.** A store may forget anything at any moment, or fail; a claim or a response is then missing,
 * but never wrong. A record that cannot be read counts as missing, and is reported.
 */
export interface IdempotencyStore {
  /** how long a claim lasts, in ms */
  readonly leaseMs: number

  /** how long a response is kept, in ms */
  readonly ttlMs: number

  /** the headers that are stored with a response, in lower case; replays repeat no others */
  readonly replayedHeaders: string[]

  /**
   * Claims the key, or reports the record that prevents it and changes nothing. A record with the same
   * token is this claim, sent twice: the result is `new`.
   *
   * @param sendUntil by `performance.now()`: the caller does not wait longer. A store that queues its
   * calls does not send this one later.
   * @returns a promise, unless this process has the response in memory
   * @throws {ForeignRecordError} if the record belongs to another database; nothing was claimed
   * @throws {NotSentError} if the call was not sent; nothing was claimed
   * @throws if the store fails; whether the claim was made is then unknown
   */
  claim(key: string, fingerprint: string, token: string, sendUntil?: number): Claim | Promise<Claim>

  /**
   * Extends a claim by one lease from now, and claims the key again if the store has lost the record.
   *
   * @returns false if the key is claimed or completed by another run
   * @throws if the store fails
   */
  renew(key: string, fingerprint: string, token: string): Promise<boolean>

  /**
   * Stores the response, unless the key is claimed by another token or completed already. An owner
   * whose record is lost, or whose lease ended unnoticed, may still complete it.
   *
   * @throws if the store fails
   */
  complete(key: string, token: string, request: CompletedRequest): Promise<void>

  /**
   * Releases the key without a response, if it is still claimed by this token.
   *
   * @throws if the store fails
   */
  release(key: string, token: string): Promise<void>

  /**
   * Calls `onChange` whenever the key may have been completed, released or left by a dead owner, until
   * it is stopped. A store without this method is polled.
   *
   * @returns a function that stops it, once no change from now on can be missed
   * @throws if the store cannot notify now, and must be polled
   */
  watch?(key: string, onChange: () => void): Promise<() => void>
}

/** The record under the key belongs to a service on another database, which shares the store. */
export class ForeignRecordError extends Error {
  override name = 'ForeignRecordError'
}

/** Called with a record that could not be read and was deleted. */
export type ReportCorruptRecord = (key: string, error: Error) => void

/** Called with the key of a record that belongs to another database and was left as it is. */
export type ReportForeignRecord = (key: string) => void
