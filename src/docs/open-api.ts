import { createRequire } from 'node:module'
import swagger from '@fastify/swagger'
import { fastifyPlugin } from 'fastify-plugin'
import { PROBLEM_SCHEMA } from '../http/problem-schemas.ts'

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
    // A route without a name is not described.
    transform: ({ schema, url }) => ({
      url,
      schema: schema?.operationId ? schema : { hide: true },
    }),
  })
})
