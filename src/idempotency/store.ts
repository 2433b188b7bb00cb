/** A finished answer, as it is sent again: the same bytes. */
export interface Answer {
  statusCode: number
  headers: Record<string, string | string[]>
  body: string | Buffer
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
  /** the same request, answered; remembered for so long yet, if the store tells, in ms */
  | { state: 'completed'; answer: Answer; remainsMs?: number }
  /** the same request, still at work elsewhere */
  | { state: 'in_flight' }
  /** another request, answered or at work */
  | { state: 'mismatch'; isAnswered: boolean }

/**
 * Remembers which keys are being worked on and which answers they got.
 *
 * **Atomicity.** Each call is one step for everybody else: of any number of simultaneous claims on a
 * free key, one is `new`.
 *
 * **Fencing.** A token, unique to one run of one request, marks the owner of a claim. Whoever lost a
 * key, to a lease that ran out, can neither write nor release it once another has claimed it.
 *
 * **Expiry.** A claim lasts one lease, from its last renewal; an answer lasts its time to live, from
 * when it was completed, and no claim extends that. What has expired is as if it had never been.
 *
 * **Loss.** A store may forget anything at any moment, or fail; a claim or an answer is then missing,
 * but never wrong. A record that cannot be read counts as missing, and is reported.
 */
export interface IdempotencyStore {
  /** how long a claim lasts, in ms */
  readonly leaseMs: number

  /**
   * Claims the key, or tells what stands in the way and changes nothing. A key that is held under
   * the same token is our own: the claim was sent twice, or is renewed for one more lease.
   *
   * @returns a promise, unless this process knows the answer
   * @throws if the store cannot be asked; whether the claim was made is then unknown
   */
  claim(key: string, fingerprint: string, token: string): Claim | Promise<Claim>

  /**
   * Remembers the answer, unless the key is held by another token or already answered. An owner
   * whose key is forgotten, or whose lease ran out unnoticed, may still complete it.
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

  /**
   * Calls `onChange` whenever the key may have been completed, abandoned or left by a dead owner,
   * until it is told to stop. A store that cannot tell has no such method, and is polled.
   *
   * @returns what stops it, once nothing that happens from now on is missed
   * @throws if the store cannot tell now, and must be polled
   */
  watch?(key: string, onChange: () => void): Promise<() => void>
}

/** Told of a record that could not be read, and was dropped. */
export type ReportCorruptRecord = (key: string, error: Error) => void
