/**
 * `@order-once/idempotency`: idempotency keys for any Fastify application.
 *
 * @module
 */
export { MAX_WAIT_SECONDS } from './claims.ts'
export { errorHandler } from './error-handler.ts'
export { type FingerprintInput, fingerprintCanonical, fingerprintRequest } from './fingerprint.ts'
export { KEY_CHARACTERS, MAX_KEY_LENGTH, parseIdempotencyKey } from './idempotency-key.ts'
export { confirmReplay, type IdempotentRequest, type Outcome } from './idempotent-request.ts'
export type { NotRemembered } from './lease.ts'
export type { IdempotencyOptions } from './options.ts'
export { idempotency } from './plugin.ts'
export {
  type FieldError,
  PROBLEM_MEDIA_TYPE,
  Problem,
  type ProblemDocument,
  type ProblemOptions,
  type ProblemType,
} from './problem.ts'
export { PROBLEM_TYPES, problems } from './problems.ts'
export type { RedisConnection, RedisSubscriber } from './redis-client.ts'
export { isResultOfProcessing } from './remembers.ts'
export { DEFAULT_REPLAYED_HEADERS } from './replayed-headers.ts'
export { NO_SCOPE } from './scope.ts'
export { createMemoryStore } from './stores/memory-store.ts'
export {
  createPostgresStore,
  deleteExpiredRecords,
  type RunQuery,
} from './stores/postgres-store.ts'
export type { RecordOptions } from './stores/record.ts'
export { createRedisStore, getRecordName } from './stores/redis-store.ts'
export {
  type Claim,
  type CompletedRequest,
  ForeignRecordError,
  type IdempotencyStore,
  type ReportCorruptRecord,
  type ReportForeignRecord,
  type StoredResponse,
} from './stores/store.ts'
