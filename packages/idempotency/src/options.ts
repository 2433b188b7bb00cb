/** The options of the plugin. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { NotRemembered } from './lease.ts'
import { isResultOfProcessing } from './remembers.ts'
import type { NO_SCOPE } from './scope.ts'
import type { CompletedRequest, IdempotencyStore } from './stores/store.ts'

type Scope = string | typeof NO_SCOPE

/** The options of the plugin. Only `store` is required. */
export interface IdempotencyOptions {
  store: IdempotencyStore
  /** whether a request without a key is refused, rather than handled without protection; default: true */
  required?: boolean
  /** the methods that are protected; default: POST and PATCH */
  methods?: string[]
  /**
   * what the key belongs to, such as a tenant: the same key in two scopes is two keys; default: none. It is
   * a non-empty string, or `NO_SCOPE`; anything else is a 500.
   */
  scope?: (request: FastifyRequest) => Scope | Promise<Scope>
  /**
   * what makes two requests the same, called on the validated request; default: method, route, parameters,
   * query and parsed body, before validation
   */
  fingerprint?: (request: FastifyRequest) => string
  /** whether a response is stored, rather than its key released; default: `isResultOfProcessing` */
  remembers?: (statusCode: number, reply: FastifyReply) => boolean
  /** the largest response body that is stored, in bytes; default: 1 MiB */
  maxBodyBytes?: number
  /**
   * whether a `Response` of the Fetch API is read, up to `maxBodyBytes`, before it is sent, so that it can be
   * stored; default: true
   */
  readsResponses?: boolean
  /** 409, or the 422 of draft-ietf-httpapi-idempotency-key-header-07 §2.7; default: 409 */
  mismatchStatus?: 409 | 422
  /** how long a call to the store may take, in ms: it is a failure then; default: 1000 */
  storeTimeoutMs?: number
  /**
   * Looks for the key where the handler writes, if that is durable and refuses a key twice. With it,
   * requests go on without the store when it fails, and a completed request is never refused.
   *
   * @param storeKey the key with its scope: what the durable record must be unique by
   */
  recover?: (storeKey: string, request: FastifyRequest) => Promise<CompletedRequest | undefined>
  /** how long a duplicate waits for the first request, unless it prefers another time, in ms; default: 0 */
  waitMs?: number
  /** how many duplicates may wait at once: each has a connection and some kilobytes; default: 1000 */
  maxWaiters?: number
  /** how long closing waits for responses that are not stored yet, in ms; default: 5000 */
  closeTimeoutMs?: number
  /** called when a run ends without a stored response, and its key is released */
  onRelease?: () => void
  /** called whenever a result of processing is not stored */
  onNotRemembered?: (reason: NotRemembered) => void
  /** called whenever a call to the store has failed */
  onStoreFailure?: () => void
  /** called for each response that could not be stored at once, and is tried again */
  onWriteFailure?: () => void
  /** called with the number of waiting duplicates whenever it changes */
  onWaitersChange?: (count: number) => void
}

/**
 * Fills in the defaults.
 *
 * @throws {Error} if there is no store
 */
export function completeOptions(options: IdempotencyOptions) {
  if (typeof options.store?.claim !== 'function') {
    throw new Error('@order-once/idempotency needs the option store, such as createMemoryStore(…)')
  }
  // `{ waitMs: config.waitMs }` is an option that is not given, too.
  const isGiven = ([, value]: [string, unknown]) => value !== undefined
  const given = Object.fromEntries(Object.entries(options).filter(isGiven)) as typeof options
  return {
    required: true,
    maxBodyBytes: 1024 * 1024,
    readsResponses: true,
    mismatchStatus: 409 as const,
    storeTimeoutMs: 1_000,
    waitMs: 0,
    maxWaiters: 1_000,
    closeTimeoutMs: 5_000,
    remembers: isResultOfProcessing,
    onRelease: () => {},
    onNotRemembered: () => {},
    onWriteFailure: () => {},
    ...given,
    methods: new Set((options.methods ?? ['POST', 'PATCH']).map((name) => name.toUpperCase())),
  }
}

export type CompleteOptions = ReturnType<typeof completeOptions>
