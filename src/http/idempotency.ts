import { randomUUID } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { fingerprintOf } from '../idempotency/fingerprint.ts'
import { parseIdempotencyKey } from '../idempotency/key.ts'
import type { Answer, AnsweredRequest, Claim, IdempotencyStore } from '../idempotency/store.ts'
import { Problem } from './problem.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** set once the key has been read */
    idempotency: IdempotentRequest | null
  }
}

/** How a request with a key ended, for the log. */
type Outcome = 'new' | 'replayed_cache' | 'replayed_database' | 'mismatch' | 'in_progress'

/** The time in which most orders are written, rounded up to the header's whole seconds. */
const IN_PROGRESS_RETRY_AFTER_SECONDS = '1'

/** Headers of an answer that belong to it, rather than to one delivery of it. */
const REPLAYED_HEADERS = ['content-type']

export interface IdempotencyOptions {
  store: IdempotencyStore
  /** 409, or the 422 of draft-ietf-httpapi-idempotency-key-header-07 §2.7 */
  mismatchStatus: 409 | 422
  /** looks for the key in the database, which knows better than the store */
  recover: (key: string) => Promise<AnsweredRequest | undefined>
}

/** One request under its key, as the route's handler sees it. */
export class IdempotentRequest {
  readonly key: string
  readonly fingerprint: string
  readonly token = randomUUID()
  outcome: Outcome | undefined
  /** whether this run works on the key, and so settles it in the end */
  ownsClaim = false
  readonly #mismatchStatus: 409 | 422

  constructor(key: string, fingerprint: string, mismatchStatus: 409 | 422) {
    this.key = key
    this.fingerprint = fingerprint
    this.#mismatchStatus = mismatchStatus
  }

  get isReplay(): boolean {
    return this.outcome === 'replayed_cache' || this.outcome === 'replayed_database'
  }

  /**
   * Says that the database holds the answer to a request under this key already.
   *
   * @throws {Problem} `idempotency-key-reused`, if that was another request
   */
  foundInDatabase(fingerprint: string): void {
    if (fingerprint !== this.fingerprint) throw this.mismatch()
    this.outcome = 'replayed_database'
  }

  mismatch(): Problem {
    this.outcome = 'mismatch'
    return new Problem(
      'idempotency-key-reused',
      'Idempotency-Key was first sent with another request; choose a new key for a new order.',
      { status: this.#mismatchStatus },
    )
  }

  inProgress(): Problem {
    this.outcome = 'in_progress'
    return new Problem(
      'request-in-progress',
      'A request with this Idempotency-Key and this body is still at work; repeat it later.',
      { headers: { 'retry-after': IN_PROGRESS_RETRY_AFTER_SECONDS } },
    )
  }
}

/**
 * Runs the handlers behind it once a key: claims the key before the handler, remembers its answer
 * after it, and replays that answer to every repeat (draft-ietf-httpapi-idempotency-key-header-07).
 *
 * The store may fail: the handler's own insert decides then.
 */
export const idempotency = fastifyPlugin(async (app, options: IdempotencyOptions) => {
  const { store, mismatchStatus, recover } = options
  app.decorateRequest('idempotency', null)

  app.addHook('preHandler', async (request, reply) => {
    const key = keyOf(request)
    const fingerprint = fingerprintOf(request.method, routePathOf(request), request.body)
    const current = new IdempotentRequest(key, fingerprint, mismatchStatus)
    request.idempotency = current

    const claim = await store
      .claim(key, fingerprint, current.token)
      .catch((error: unknown): Claim => {
        request.log.debug({ err: error }, 'the key could not be claimed; the database decides')
        return { state: 'new' }
      })
    if (claim.state === 'new') {
      current.ownsClaim = true
      current.outcome = 'new'
      return
    }
    if (claim.state === 'completed') {
      current.outcome = 'replayed_cache'
      return replay(reply, claim.answer)
    }
    // What stands in the way may be the mark of a dead process, or of a wrong body whose refusal
    // is on its way. Refuse only what the database does not know better.
    const recovered = await recover(key)
    if (recovered === undefined) {
      throw claim.state === 'mismatch' ? current.mismatch() : current.inProgress()
    }
    current.foundInDatabase(recovered.fingerprint)
    return replay(reply, recovered.answer)
  })

  app.addHook('onSend', async (request, reply, payload) => {
    const current = request.idempotency
    if (current === null) return
    if (current.isReplay) reply.header('idempotency-replayed', 'true')
    if (!current.ownsClaim) return
    // Nobody waits for the store here: the answer stands in the database already.
    settle(current, reply, payload).catch((error: unknown) => {
      request.log.debug({ err: error }, 'the answer could not be remembered')
    })
  })

  /** Remembers a success; gives the key back after anything else, so that it can be tried again. */
  async function settle(
    { key, token, fingerprint }: IdempotentRequest,
    reply: FastifyReply,
    payload: unknown,
  ) {
    const { statusCode } = reply
    if (statusCode >= 300 || typeof payload !== 'string') return store.abandon(key, token)
    const answer = { statusCode, headers: replayedHeadersOf(reply), body: payload }
    return store.complete(key, token, { fingerprint, answer })
  }
})

/** @throws {Problem} */
function keyOf(request: FastifyRequest): string {
  const given = request.raw.headersDistinct['idempotency-key']
  if (given === undefined) {
    throw new Problem('idempotency-key-missing', 'Idempotency-Key is required.')
  }
  if (given.length > 1) {
    throw new Problem('idempotency-key-invalid', 'Idempotency-Key must be sent exactly once.')
  }
  const key = parseIdempotencyKey(given[0] ?? '')
  if (key === undefined) {
    throw new Problem(
      'idempotency-key-invalid',
      'Idempotency-Key must be 1 to 255 visible ASCII characters, without double quotes, commas and backslashes.',
    )
  }
  return key
}

function routePathOf(request: FastifyRequest): string {
  return request.routeOptions.url ?? request.url
}

function replayedHeadersOf(reply: FastifyReply): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const name of REPLAYED_HEADERS) {
    const value = reply.getHeader(name)
    if (value !== undefined) headers[name] = String(value)
  }
  return headers
}

function replay(reply: FastifyReply, answer: Answer) {
  return reply.code(answer.statusCode).headers(answer.headers).send(answer.body)
}
