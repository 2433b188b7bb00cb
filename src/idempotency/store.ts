/** A finished answer, as it is sent again. */
export interface Answer {
  statusCode: number
  headers: Record<string, string>
  body: string
}

/** An answer and the fingerprint of the request that it answered. */
export interface AnsweredRequest {
  fingerprint: string
  answer: Answer
}

/** What a claim found under the key. */
export type Claim =
  /** nothing: the key is now ours for one lease */
  | { state: 'new' }
  /** the same request, answered */
  | { state: 'completed'; answer: Answer }
  /** the same request, still at work elsewhere */
  | { state: 'in_flight' }
  /** another request, answered or at work */
  | { state: 'mismatch' }

/**
 * Remembers which keys are being worked on and which answers they got. It may forget anything at
 * any moment without harm to an order: the database has the last word.
 *
 * A token, unique to one run of one request, fences the owner of a claim: whoever lost the key, to
 * a lease that ran out, can no longer write or release it.
 */
export interface IdempotencyStore {
  /**
   * Claims the key in one atomic step, or tells what stands in the way. A key that is held under
   * the same token is our own claim, sent twice.
   *
   * @throws if the store cannot be asked; whether the claim was made is then unknown
   */
  claim(key: string, fingerprint: string, token: string): Promise<Claim>
  /**
   * Remembers the answer, unless the key is held by another token or already answered.
   *
   * @throws if the store cannot be asked
   */
  complete(key: string, token: string, request: AnsweredRequest): Promise<void>
  /**
   * Gives the key back, if it is still held under this token.
   *
   * @throws if the store cannot be asked
   */
  abandon(key: string, token: string): Promise<void>
}
