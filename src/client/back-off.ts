const BASE_MS = 200
const CAP_MS = 10_000

/**
 * How long to wait before the next attempt: exponential back-off with full jitter, so that clients
 * that failed together do not come back together.
 *
 * @param failures how many attempts have failed, from 1
 * @param random from 0 to below 1
 * @returns whole ms, from 0 to 200 after the first failure, to at most 10 s later
 * @see https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export function backOffMs(failures: number, random = Math.random): number {
  return Math.round(random() * Math.min(CAP_MS, BASE_MS * 2 ** (failures - 1)))
}
