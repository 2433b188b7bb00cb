/**
 * `order-once/idempotency`: the idempotency of this service for any Fastify application.
 *
 * @module
 */
export { errorHandler } from './http/error-handler.ts'
export { type IdempotencyOptions, idempotency, MAX_WAIT_SECONDS } from './http/idempotency.ts'
export type { IdempotentRequest, Outcome } from './http/idempotent-request.ts'
export { Problem } from './http/problem.ts'
export { DEFAULT_REPLAYED_HEADERS } from './http/replayed-headers.ts'
export { fingerprintOf } from './idempotency/fingerprint.ts'
export { parseIdempotencyKey } from './idempotency/key.ts'
export { createMemoryStore } from './idempotency/memory-store.ts'
export { createPostgresStore, deleteExpiredRecords } from './idempotency/postgres-store.ts'
export { createRedisStore } from './idempotency/redis-store.ts'
export type { Answer, AnsweredRequest, Claim, IdempotencyStore } from './idempotency/store.ts'
export { WaitingRoom } from './idempotency/waiting-room.ts'
