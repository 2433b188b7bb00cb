import { isUtf8 } from 'node:buffer'
import type { FastifyRequest, FastifySchemaValidationError } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { type FieldError, Problem } from './problem.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** the body as it came, which the signature covers */
    rawBody: Buffer
    /** what is wrong with the body before its schema is looked at */
    heldBodyProblem: Problem | null
  }
}

/** Enough to mend a body by; more would let a small request cause a large answer. */
const MAX_FIELD_ERRORS = 16
const NO_BYTES = Buffer.alloc(0)

/**
 * Reads JSON bodies, keeps their bytes for the signature, and holds back whatever is wrong with
 * them: a caller who fails the signature is told nothing about the body. `bodyCheck` raises it.
 */
export const jsonBody = fastifyPlugin(async (app) => {
  app.decorateRequest('rawBody')
  app.decorateRequest('heldBodyProblem', null)
  app.removeAllContentTypeParsers()

  app.addHook('onRoute', (route) => {
    route.attachValidation = true
  })

  app.addHook('onRequest', (request, _reply, done) => {
    request.rawBody = NO_BYTES
    // Fastify refuses a Content-Type it cannot parse before any hook that could check a signature.
    if (!request.mediaType) delete request.raw.headers['content-type']
    done()
  })

  app.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body: Buffer, done) => {
    request.rawBody = body
    try {
      done(null, parseJson(request, body))
    } catch (error) {
      request.heldBodyProblem = error as Problem
      done(null)
    }
  })
})

/** Raises what is wrong with the body, found while it was parsed and validated. */
export const bodyCheck = fastifyPlugin(async (app) => {
  app.addHook('preHandler', ({ heldBodyProblem, validationError }, _reply, done) => {
    if (heldBodyProblem) return done(heldBodyProblem)
    const errors = validationError?.validation
    done(errors && invalidBody(errors.map(fieldErrorOf)))
  })
})

/** @throws {Problem} */
function parseJson(request: FastifyRequest, body: Buffer): unknown {
  if (request.mediaType !== 'application/json') {
    throw new Problem('unsupported-media-type', 'Content-Type must be application/json.')
  }
  if (request.headers['content-encoding'] !== undefined) {
    throw new Problem('unsupported-media-type', 'The body must come without a Content-Encoding.')
  }
  // Decoding would replace malformed bytes, and two different bodies would become the same.
  if (!isUtf8(body)) throw wrongBody('must be UTF-8')
  try {
    return JSON.parse(body.toString())
  } catch {
    throw wrongBody('must be JSON')
  }
}

const wrongBody = (message: string) => invalidBody([{ field: 'body', message }])

function invalidBody(errors: FieldError[]): Problem {
  // A field that breaks two keywords of its schema breaks one rule.
  const told = new Map(errors.map((error) => [`${error.field} ${error.message}`, error]))
  const sentences = [...told.keys()].slice(0, MAX_FIELD_ERRORS)
  return new Problem('invalid-body', `${sentences.join('; ')}.`, {
    errors: [...told.values()].slice(0, MAX_FIELD_ERRORS),
  })
}

/** A broken rule in words; the rule itself is the `description` that its schema carries. */
function fieldErrorOf(error: FastifySchemaValidationError): FieldError {
  const { keyword, params, instancePath } = error
  if (keyword === 'required')
    return { field: String(params.missingProperty), message: 'is required' }
  if (keyword === 'additionalProperties') {
    return { field: String(params.additionalProperty), message: 'is not a member of an order' }
  }
  const { parentSchema } = error as { parentSchema?: { description?: string } }
  return {
    field: instancePath.slice(1) || 'body',
    message: `must be ${parentSchema?.description ?? 'valid'}`,
  }
}
