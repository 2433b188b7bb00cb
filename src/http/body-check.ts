/** Parses and validates the body of a request. It runs after the checks that every request must pass first. */
import { isUtf8 } from 'node:buffer'
import type { FieldError, Problem } from '@order-once/idempotency'
import {
  Ajv,
  type ErrorObject,
  type FuncKeywordDefinition,
  type SchemaValidateFunction,
  type ValidateFunction,
} from 'ajv'
import type { FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { problems } from './problems.ts'
import { findRepeatedMembers } from './repeated-members.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** compiled from the schema of the route's body */
    validateBody?: ValidateFunction
  }
}

/** Enough to fix a body by; more would let a small request cause much work and a large response. */
const MAX_FIELD_ERRORS = 12

/**
 * Sets `request.body` from the bytes, as they are: nothing is coerced, removed or added. Refuses what is not
 * JSON, or breaks the schema of the route.
 *
 * @param options `keywords`: further keywords of the schemas
 */
export const bodyCheck = fastifyPlugin(
  async (app, { keywords }: { keywords: FuncKeywordDefinition[] }) => {
    const ajv = new Ajv({
      allErrors: true,
      verbose: true, // an error has its schema, whose description is the rule in words
      strict: false,
      meta: false, // the schema of schemas needs the keyword that is replaced
      validateSchema: false,
    })
    ajv.removeKeyword(additionalProperties.keyword)
    for (const keyword of [additionalProperties, ...keywords]) ajv.addKeyword(keyword)

    app.addHook('onRoute', (route) => {
      const schema = route.schema?.body as object | undefined
      if (schema) route.config = { ...route.config, validateBody: ajv.compile(schema) }
    })

    app.addHook('preHandler', function checkBody(request, _reply, done) {
      const { validateBody } = request.routeOptions.config
      if (validateBody) request.body = parseBody(request, validateBody)
      done()
    })
  },
  { name: 'body-check', dependencies: ['raw-body', 'rate-limit'] },
)

/** @throws {Problem} */
function parseBody(request: FastifyRequest, validate: ValidateFunction): unknown {
  const { rawBody, headers, mediaType } = request
  const isEmpty = rawBody.length === 0 && mediaType === undefined
  if (mediaType !== 'application/json' && !isEmpty) throw problems.contentType()
  const coding = headers['content-encoding']
  if (coding !== undefined && coding.toLowerCase() !== 'identity') throw problems.contentEncoding()
  // Decoding would replace malformed bytes, and two different bodies would become the same.
  if (!isUtf8(rawBody)) throw problems.invalidBody([{ field: 'body', message: 'must be UTF-8' }])
  const text = rawBody.toString()
  const body = isEmpty ? undefined : parseJson(text)
  const errors = validate(body) ? [] : (validate.errors ?? []).map(toFieldError)
  for (const field of findRepeatedMembers(text, MAX_FIELD_ERRORS)) {
    errors.push({ field, message: 'must not occur twice' })
  }
  if (errors.length > 0) throw invalidBody(errors)
  return body
}

/** @throws {Problem} */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw problems.invalidBody([{ field: 'body', message: 'must be JSON' }])
  }
}

/** A field that breaks two keywords of its schema breaks one rule: it is reported once. */
function invalidBody(errors: FieldError[]): Problem {
  const distinct = new Map(errors.map((error) => [`${error.field} ${error.message}`, error]))
  return problems.invalidBody([...distinct.values()].slice(0, MAX_FIELD_ERRORS))
}

const findUnknownMembers: SchemaValidateFunction = (isAllowed, body, { properties } = {}) => {
  if (isAllowed) return true
  const errors: Partial<ErrorObject>[] = []
  for (const name in body) {
    if (Object.hasOwn(properties, name)) continue
    errors.push({ keyword: 'additionalProperties', params: { name } })
    if (errors.length === MAX_FIELD_ERRORS) break
  }
  findUnknownMembers.errors = errors // where Ajv reads them
  return errors.length === 0
}

/** Ajv's own keyword reports every unknown member of a body that has thousands. */
const additionalProperties = {
  keyword: 'additionalProperties',
  type: 'object',
  schemaType: 'boolean',
  validate: findUnknownMembers,
} as const satisfies FuncKeywordDefinition

/** A broken rule in words: the `description` of the schema. */
function toFieldError({ keyword, params, instancePath, parentSchema }: ErrorObject): FieldError {
  if (keyword === 'required') return { field: params.missingProperty, message: 'is required' }
  if (keyword === 'additionalProperties') {
    return { field: params.name, message: 'is not a member of an order' }
  }
  return {
    field: instancePath.slice(1) || 'body',
    message: `must be ${parentSchema?.description ?? 'valid'}`,
  }
}
