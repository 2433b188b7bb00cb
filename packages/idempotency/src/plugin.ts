/** The Fastify plugin: runs the handlers behind it once per key. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { NotCanonicalError } from './canonical-json.ts'
import { createClaimer } from './claims.ts'
import { fingerprintParsedRequest } from './fingerprint.ts'
import { parseIdempotencyKey } from './idempotency-key.ts'
import {
  createIdempotentRequest,
  type IdempotentRequest,
  isReplay,
  refuseInProgress,
  refuseMismatch,
} from './idempotent-request.ts'
import { computeRetryAfterSeconds, type Lease, startLease } from './lease.ts'
import { completeOptions, type IdempotencyOptions } from './options.ts'
import { problems } from './problems.ts'
import { protectRoutes } from './protected-routes.ts'
import { Releases } from './releases.ts'
import { removeReplay, restoreResponse, sendResponse } from './replay.ts'
import { ResponseWriter } from './response-writer.ts'
import { nameRecord } from './scope.ts'
import { createStoreErrorReport } from './store-errors.ts'
import type { StoredResponse } from './stores/store.ts'
import { WaitQueue } from './wait-queue.ts'
import { applyResponse, isEventStream, isWebResponse, readBody } from './web-response.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** set once the key has been claimed, for the handler; null before, and on other requests */
    idempotency: IdempotentRequest | null
    [state]: RequestState | null
  }
}

/**
 * The property of a request that has the state of the plugin, out of reach of handlers. It is not an entry in a
 * `WeakMap`: see docs/performance.md.
 */
const state = Symbol('state')

interface RequestState {
  /** taken before validation; an error is thrown once the caller was let in */
  fingerprint: string | Error | undefined
  lease: Lease | undefined
  /** the stored response that is being sent */
  replay: StoredResponse | undefined
  /** whether a hook or the handler has failed: an error is sent */
  hasFailed: boolean
}

const createState = (fingerprint: string | Error | undefined): RequestState => ({
  fingerprint,
  lease: undefined,
  replay: undefined,
  hasFailed: false,
})

/**
 * Runs the handlers behind it once per key: claims the key before the handler, stores the response after
 * it, and replays that response to every repeat (draft-ietf-httpapi-idempotency-key-header-07).
 * Register it, and await that, in the scope of the routes that it is to protect, before them.
 *
 * @throws {Error} if there is no store
 */
export const idempotency = fastifyPlugin(
  async (app, given: IdempotencyOptions) => {
    const options = completeOptions(given)
    const { store, scope, required, methods, fingerprint, mismatchStatus } = options
    const { maxBodyBytes, readsResponses, onRelease, onNotRemembered } = options
    const reportError = createStoreErrorReport(
      // Where nothing else is durable, a failure of the store can make a handler run again.
      options.recover ? 'debug' : 'warn',
      options.onStoreFailure,
    )
    const waiters = new WaitQueue(store, options.maxWaiters, options.onWaitersChange)
    const releases = new Releases(store, options.storeTimeoutMs, reportError)
    const responses = new ResponseWriter({
      ...{ store, storeTimeoutMs: options.storeTimeoutMs },
      ...{ closeTimeoutMs: options.closeTimeoutMs, reportError },
      retries: options.recover === undefined,
      onWriteFailure: options.onWriteFailure,
      onGiveUp: () => onNotRemembered('not-stored'),
    })
    const claimKey = createClaimer({ options, waiters, releases, responses, reportError })
    const lease = {
      ...{ store, remembers, maxBodyBytes, releases, responses, reportError },
      ...{ onRelease, onNotRemembered },
    }

    app.decorateRequest('idempotency', null)
    app.decorateRequest(state, null)
    app.addHook('preClose', async () => waiters.close())
    app.addHook('onClose', async () => {
      await responses.close(app.log)
      releases.close()
    })

    protectRoutes(app, {
      methods,
      preValidation: prepare,
      preHandler: runOncePerKey,
      run: (request, handler) => {
        const lease = request[state]?.lease
        return lease ? lease.run(handler) : handler()
      },
      isPrepared: (request) => request[state] !== null,
    })

    /**
     * Takes the default fingerprint before validation, which may change the request: a new default must not
     * turn a retry into a conflict.
     */
    function prepare(
      request: FastifyRequest,
      _reply: FastifyReply,
      done: (error?: Error) => void,
    ): void {
      if (methods.has(request.method)) {
        const hasKey = request.headers['idempotency-key'] !== undefined
        request[state] = createState(hasKey && !fingerprint ? tryToFingerprint(request) : undefined)
      }
      done()
    }

    async function runOncePerKey(request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
      const requestState = request[state]
      if (requestState === null) return
      const key = readKey(request, required)
      if (key === undefined) return
      const current = createIdempotentRequest({
        key,
        storeKey: scope ? readStoreKey(request, await scope(request), key) : key,
        fingerprint: fingerprint ? readOwnFingerprint(request) : readFingerprint(request),
        mismatchStatus,
      })
      request.idempotency = current

      const claim = await claimKey(current, request, reply)
      // It was responded to while the claim was in flight: Fastify does not call the handler.
      if (reply.sent) return claim.state === 'new' && releases.release(current, request.log)
      switch (claim.state) {
        case 'new':
          current.outcome = 'new'
          requestState.lease = startLease(current, request, reply, lease)
          return
        case 'unclaimed':
          current.outcome = 'new'
          return
        case 'completed':
          requestState.replay = claim.response
          return sendResponse(reply, claim.response)
        case 'recovered':
          return sendResponse(reply, claim.response)
        case 'mismatch':
          throw refuseMismatch(current)
        case 'in_flight':
          throw refuseInProgress(
            current,
            computeRetryAfterSeconds(claim.remainingMs, store.leaseMs),
          )
        default: // of a store that is not typed: without a claim, the handler must not run
          throw new Error('the store has returned a claim without a known state')
      }
    }

    app.addHook('onSend', function storeOrRestore(request, reply, payload: unknown, done) {
      const { idempotency, [state]: requestState } = request
      if (idempotency === null || requestState === null) return done()
      const { lease, replay, hasFailed } = requestState
      if (!hasFailed && isReplay(idempotency)) reply.header('idempotency-replayed', 'true')
      if (replay) return done(null, restoreResponse(reply, payload, replay, store.replayedHeaders))
      if (lease === undefined) return done()
      if (!isWebResponse(payload)) {
        lease.storeOrRelease(payload)
        return done()
      }
      readWebResponse(reply, payload).then((body) => {
        lease.storeOrRelease(body, body === payload.body ? 'stream' : 'too-large')
        done(null, body)
      }, done)
    })

    app.addHook('onError', (request, reply, _error, done) => {
      const requestState = request[state]
      if (requestState) {
        requestState.hasFailed = true
        reply.removeHeader('idempotency-replayed')
        if (requestState.replay) removeReplay(reply, requestState.replay)
        requestState.replay = undefined
      }
      done()
    })

    /** Whether a response is stored; not if the option fails. */
    function remembers(statusCode: number, reply: FastifyReply): boolean {
      try {
        return options.remembers(statusCode, reply)
      } catch (error) {
        reply.log.error({ err: error }, 'the option remembers has failed; releasing the key')
        return false
      }
    }

    /** Reads the body of a response that would be stored. @returns it, or what is to be sent as a stream */
    async function readWebResponse(reply: FastifyReply, response: Response): Promise<unknown> {
      applyResponse(reply, response)
      const { body } = response
      if (body === null || !readsResponses || isEventStream(response)) return body
      return remembers(response.status, reply) ? readBody(body, maxBodyBytes) : body
    }

    /** @throws {Error} what the application's function throws, or if it returns no text */
    function readOwnFingerprint(request: FastifyRequest): string {
      const own: unknown = fingerprint?.(request)
      if (typeof own === 'string' && own !== '') return own
      throw reportUnprotected(request, new Error('the option fingerprint must return a string'))
    }
  },
  { name: '@order-once/idempotency', fastify: '^5.2.0' },
)

/** @throws {Error} if the scope is no text */
function readStoreKey(request: FastifyRequest, scope: unknown, key: string): string {
  try {
    return nameRecord(scope, key)
  } catch (error) {
    throw reportUnprotected(request, error)
  }
}

function tryToFingerprint(request: FastifyRequest): string | Error {
  try {
    return fingerprintParsedRequest(request)
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

/**
 * @throws {Problem} `bad-request` for a body that no fingerprint can be taken of
 * @throws {Error} for a body that the default fingerprint cannot see
 */
function readFingerprint(request: FastifyRequest): string {
  const fingerprint = request[state]?.fingerprint
  if (typeof fingerprint === 'string') return fingerprint
  if (fingerprint instanceof NotCanonicalError) throw problems.noFingerprint()
  const reason = `${fingerprint?.message}: set the option fingerprint`
  throw reportUnprotected(request, new Error(reason))
}

/** Logs why the key of the request cannot protect it. @returns the error to throw, which hides the reason */
function reportUnprotected(request: FastifyRequest, reason: unknown): Error {
  request.log.error({ err: reason }, 'the request cannot be protected by its Idempotency-Key')
  return new Error('The request cannot be protected by its Idempotency-Key.')
}

/** @throws {Problem} `idempotency-key-missing` or `idempotency-key-invalid` */
function readKey(request: FastifyRequest, required: boolean): string | undefined {
  const header = request.headers['idempotency-key']
  if (header === undefined) {
    if (!required) return undefined
    throw problems.keyMissing()
  }
  const key = parseIdempotencyKey(String(header))
  if (key === undefined) throw problems.keyInvalid()
  return key
}
