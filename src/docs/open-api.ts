/** Makes the OpenAPI document, `app.swagger()`, from the schemas of the routes that are added after it. */
import swagger from '@fastify/swagger'
import { fastifyPlugin } from 'fastify-plugin'
import { APPLICATION } from '../application.ts'
import { PROBLEM_SCHEMA } from '../http/problem-schemas.ts'

const { name, version, description, license } = APPLICATION

/** Decorates the app with `swagger()`. Register it before the routes that it describes. */
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
              'The HMAC-SHA256 of the exact bytes of the body, or of the path with its query for a GET, keyed with the shared secret, as 64 hex digits.',
          },
          messageSignature: {
            type: 'apiKey',
            in: 'header',
            name: 'Signature',
            description:
              'An HTTP message signature (RFC 9421) with a key of the client, together with `Signature-Input`, and for a POST `Content-Digest` (RFC 9530). It covers `@method`, `@authority`, `@path`, `@query` if there is one, and for a POST `content-digest`, `content-type` and `idempotency-key`. Its parameters are `created` and `keyid`. Only where the service has keys of clients.',
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
