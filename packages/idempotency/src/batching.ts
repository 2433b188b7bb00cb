/**
 * `@order-once/idempotency/batching`: groups the calls to a store, and limits them in number and time.
 *
 * @module
 */
export {
  Batcher,
  type BatcherOptions,
  ConcurrencyLimit,
  NotSentError,
  QueueFullError,
} from './batcher.ts'
export { DeadlineError, startDeadline, withDeadline } from './deadline.ts'
export type { RedisClient } from './redis-client.ts'
export {
  createScriptBatcher,
  defineKeyScript,
  type RunCall,
  type ScriptBatcherOptions,
} from './script-batcher.ts'
