/** Parses and validates JSON bodies. A caller without a valid signature learns nothing about what is wrong with them. */
import { isUtf8 } from 'node:buffer'
import { type FieldError, Problem } from '@order-once/idempotency'
import { Ajv, type KeywordDefinition } from 'ajv'
import type { FastifyRequest, FastifySchemaValidationError } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { problems } from './problems.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** the bytes of the body, which the signature covers */
    rawBody: Buffer
    /** what is wrong with the body, found before its validation */
    bodyProblem: Problem | null
  }
}

/** Enough to fix a body by; more would let a small request cause a large response. */
const MAX_FIELD_ERRORS = 16
const NO_BYTES = Buffer.alloc(0)

/**
 * Validates bodies as they are: nothing is coerced, removed or added. Headers are checked by the
 * pipeline, in its own order, and responses are sent as the bytes they are: their schemas are for the
 * OpenAPI document alone.
 *
 * @param options `keywords`: further keywords of the schemas
 */
export const schemaCompilers = fastifyPlugin(
  async (app, { keywords }: { keywords: KeywordDefinition[] }) => {
    const ajv = new Ajv({
      allErrors: true,
      verbose: true, // an error has its schema, whose description is the rule in words
      strict: false,
      keywords,
    })
    app.setValidatorCompiler(({ schema, httpPart }) =>
      httpPart === 'body' ? ajv.compile(schema) : () => true,
    )
    app.setSerializerCompiler(() => JSON.stringify)
  },
  { name: 'schema-compilers' },
)

/** Parses bodies and keeps their bytes; `bodyCheck` throws what is wrong with them. */
export const jsonBody = fastifyPlugin(
  async (app) => {
    app.decorateRequest('rawBody')
    app.decorateRequest('bodyProblem', null)
    app.removeAllContentTypeParsers()

    app.addHook('onRoute', (route) => {
      route.attachValidation = true
    })

    app.addHook('onRequest', (request, _reply, done) => {
      request.rawBody = NO_BYTES
      // Fastify refuses a Content-Type that it cannot parse before any hook could check a signature.
      if (!request.mediaType) delete request.raw.headers['content-type']
      done()
    })

    app.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body: Buffer, done) => {
      request.rawBody = body
      try {
        done(null, parseJson(request, body))
      } catch (error) {
        if (!(error instanceof Problem)) return done(error as Error)
        request.bodyProblem = error
        done(null)
      }
    })
  },
  { name: 'json-body' },
)

/** Throws what is wrong with the body. */
export const bodyCheck = fastifyPlugin(
  async (app) => {
    app.addHook('preHandler', function checkBody(request, _reply, done) {
      const { bodyProblem, validationError } = request
      if (bodyProblem) return done(bodyProblem)
      const errors = validationError?.validation
      done(errors && invalidBody(errors.map(toFieldError)))
    })
  },
  { name: 'body-check', dependencies: ['json-body', 'rate-limit'] },
)

/** @throws {Problem} */
function parseJson(request: FastifyRequest, body: Buffer): unknown {
  if (request.mediaType !== 'application/json') throw problems.contentType()
  if (request.headers['content-encoding'] !== undefined) throw problems.contentEncoding()
  // Decoding would replace malformed bytes, and two different bodies would become the same.
  if (!isUtf8(body)) throw invalidBody([{ field: 'body', message: 'must be UTF-8' }])
  try {
    return JSON.parse(body.toString())
  } catch {
    throw invalidBody([{ field: 'body', message: 'must be JSON' }])
  }
}

/** A field that breaks two keywords of its schema breaks one rule: it is reported once. */
function invalidBody(errors: FieldError[]): Problem {
  const distinct = new Map(errors.map((error) => [`${error.field} ${error.message}`, error]))
  return problems.invalidBody([...distinct.values()].slice(0, MAX_FIELD_ERRORS))
}

/** A broken rule in words: the `description` of the schema. */
function toFieldError(error: FastifySchemaValidationError): FieldError {
  const { keyword, params, instancePath } = error
  if (keyword === 'required') {
    return { field: String(params.missingProperty), message: 'is required' }
  }
  if (keyword === 'additionalProperties') {
    return { field: String(params.additionalProperty), message: 'is not a member of an order' }
  }
  const { parentSchema } = error as { parentSchema?: { description?: string } }
  return {
    field: instancePath.slice(1) || 'body',
    message: `must be ${parentSchema?.description ?? 'valid'}`,
  }
}
