/** The refusals of this package: one function for each. */
import { Problem, type ProblemType } from './problem.ts'

/** Their status and title. */
export const PROBLEM_TYPES = {
  'idempotency-key-missing': { status: 400, title: 'The Idempotency-Key header is missing' },
  'idempotency-key-invalid': { status: 400, title: 'The Idempotency-Key header is invalid' },
  'bad-request': { status: 400, title: 'The request is malformed' },
  'idempotency-key-reused': {
    status: 409,
    title: 'The Idempotency-Key belongs to another request',
  },
  'request-in-progress': { status: 409, title: 'The same request is still in progress' },
  'store-unavailable': { status: 503, title: 'The Idempotency-Key cannot be checked now' },
} as const satisfies Record<string, ProblemType>

/** In seconds: the least that the header can say. Most stores respond again within a second. */
const RETRY_AFTER = { 'retry-after': '1' }

const create = (code: keyof typeof PROBLEM_TYPES, detail: string, headers = {}) =>
  new Problem(code, PROBLEM_TYPES[code], detail, { headers })

/** The refusals of the package. Throw one in a hook or a handler. */
export const problems = {
  keyMissing: () => create('idempotency-key-missing', 'Idempotency-Key is required.'),
  keyInvalid: () =>
    create(
      'idempotency-key-invalid',
      'Idempotency-Key must be sent exactly once: 1 to 255 visible ASCII characters, without double quotes, commas and backslashes.',
    ),
  noFingerprint: () =>
    create('bad-request', 'The body has no canonical form. A number in it may be too large.'),
  /**
   * @param status 409, or the 422 of draft-ietf-httpapi-idempotency-key-header-07 §2.7
   * @param changed the members of the body that differ, if they are known
   */
  keyReused: (status: 409 | 422, changed?: string[]) =>
    new Problem(
      'idempotency-key-reused',
      { ...PROBLEM_TYPES['idempotency-key-reused'], status },
      'Idempotency-Key was first sent with another request; choose a new key for a new request.',
      { ...(changed && { changed }) },
    ),
  /** @param retryAfterSeconds when its response or the key is expected */
  requestInProgress: (retryAfterSeconds: number) =>
    create(
      'request-in-progress',
      'The same request under this Idempotency-Key is still in progress; repeat it later.',
      { 'retry-after': `${retryAfterSeconds}` },
    ),
  storeUnavailable: () =>
    create(
      'store-unavailable',
      'Idempotency-Key cannot be checked now; repeat the request later.',
      RETRY_AFTER,
    ),
}
