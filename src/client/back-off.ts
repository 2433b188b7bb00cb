/** The wait before a retry: exponential back-off with full jitter. */

/** Long enough for a short disturbance, such as a reset connection, to end. */
const MAX_FIRST_WAIT_MS = 200
/** Without a limit, the client would notice a recovered service minutes too late. */
const MAX_WAIT_MS = 10_000

/**
 * Computes a random wait, so that clients that failed at the same moment do not retry at the same
 * moment. Its upper limit doubles with every failure.
 *
 * @param failures number of failed attempts, from 1
 * @param random returns a number from 0 to below 1
 * @returns whole ms: from 0 to 200 after the first failure, later from 0 to at most 10 000
 * @see https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export function computeBackOffMs(failures: number, random = Math.random): number {
  return Math.round(random() * Math.min(MAX_WAIT_MS, MAX_FIRST_WAIT_MS * 2 ** (failures - 1)))
}
