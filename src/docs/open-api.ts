/** Makes the OpenAPI document, `app.swagger()`, from the schemas of the routes that are added after it. */
import swagger from '@fastify/swagger'
import { fastifyPlugin } from 'fastify-plugin'
import { APPLICATION } from '../application.ts'
import { PROBLEM_SCHEMA } from '../http/problem-schemas.ts'

const { name, version, description, license } = APPLICATION

export const openApi = fastifyPlugin(async (app) => {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: name,
        version,
        description: `${description} Every refusal is a problem document (RFC 9457), whose \`type\` is a page of this service that explains it.`,
        license: { name: license, identifier: license },
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
    // A route without an `operationId` is not described.
    transform: ({ schema, url }) => ({
      url,
      schema: schema?.operationId ? schema : { hide: true },
    }),
  })
})
