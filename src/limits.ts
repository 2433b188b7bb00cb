/** Time limits and sizes that depend on each other. test/limits.test.ts checks their sums. */

/**
 * How long one query to Postgres may take, with all of its attempts (three at most). A request that makes two still
 * has its response before clients give up, commonly after 10 s.
 */
export const QUERY_TIMEOUT_MS = 3_000

/** How long Postgres may run one statement: it ends before its query times out, and the connection stays. */
export const STATEMENT_TIMEOUT_MS = 2_500

/** How long a new connection to Postgres may take: no query waits longer for it. */
export const CONNECT_TIMEOUT_MS = QUERY_TIMEOUT_MS

/** How long one call to Redis may take: then the request goes on without it. */
export const REDIS_COMMAND_TIMEOUT_MS = 200

/** From SIGTERM until the process ends, whatever is still open. Docker kills after 10 s, too. */
export const SHUTDOWN_TIMEOUT_MS = 10_000

// The parts of a shutdown, one after the other:
/** Requests in flight may finish: without Postgres, they fail within 5 s. Then their connections are closed. */
export const FINISH_TIMEOUT_MS = 6_000
/** Within that time: a request that was sent when the shutdown began still gets a response. */
export const IDLE_CONNECTION_GRACE_MS = 500
export const REDIS_CLOSE_TIMEOUT_MS = REDIS_COMMAND_TIMEOUT_MS
/** A batch of the clean-up may end. */
export const CLEAN_UP_CLOSE_TIMEOUT_MS = 500
export const POSTGRES_CLOSE_TIMEOUT_MS = 1_000
/** Spans that are not sent by then are dropped. */
export const TRACES_FLUSH_TIMEOUT_MS = 1_000

/** How long a client may take to send one request: a small body on a slow line, not a slow attack. */
export const REQUEST_TIMEOUT_MS = 15_000

/** Longer than the longest response takes: a duplicate waits up to 30 s, and then its handler runs. */
export const STALLED_CONNECTION_TIMEOUT_MS = 45_000

/** Headers are small: they get less time than a whole request. */
export const HEADERS_TIMEOUT_MS = 10_000

/** The size of all headers of a request, in bytes: Node's default, set so that it stays. */
export const MAX_HEADER_BYTES = 16_384

/** Most failures are over within a second: the least that the header can say. */
export const RETRY_AFTER_SECONDS = 1
