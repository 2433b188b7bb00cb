import { createRequire } from 'node:module'
import swagger from '@fastify/swagger'
import type { FastifySchema } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { PROBLEM_SCHEMA } from './problem-responses.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Tells of the route in the OpenAPI document; a route without it is not in there. */
    reference?: RouteReference
  }
}

/**
 * What the OpenAPI document says of a route besides its path, its method and its schema. Nothing is
 * validated or serialised by it: the pipeline checks headers in its own order, and answers are sent as
 * the bytes they are.
 */
export type RouteReference = FastifySchema & { summary: string; response: Record<string, object> }

/** The security scheme of a signed route. */
export const SIGNED = [{ signature: [] }]

const { version } = createRequire(import.meta.url)('../../package.json') as { version: string }

/** Makes the OpenAPI document, `app.swagger()`, of the routes that are added after it. */
export const openApi = fastifyPlugin(async (app) => {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'order-once',
        version,
        description:
          'Creates an order exactly once, however often its request is repeated. Every refusal is a problem document (RFC 9457), whose `type` is a page of this service that explains it.',
        license: { name: 'MIT', identifier: 'MIT' },
      },
      tags: [{ name: 'Orders' }, { name: 'Problems' }, { name: 'Operation' }],
      components: {
        securitySchemes: {
          signature: {
            type: 'apiKey',
            in: 'header',
            name: 'X-Signature',
            description:
              'The HMAC-SHA256 of the exact bytes of the body, keyed with the shared secret, as 64 hex digits.',
          },
        },
        schemas: { Problem: PROBLEM_SCHEMA },
      },
    },
    transform: ({ schema, url, route }) => {
      const reference = route.config?.reference
      return { url, schema: reference ? { ...schema, ...reference } : { hide: true } }
    },
  })
})
