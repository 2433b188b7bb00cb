/** Makes the OpenAPI document, `app.swagger()`, from the schemas of the routes that are added after it. */
import swagger from '@fastify/swagger'
import { fastifyPlugin } from 'fastify-plugin'
import { APPLICATION } from '../application.ts'

const { name, version, description, license } = APPLICATION

/** Decorates the app with `swagger()`. Register it before the routes that it describes. */
export const openApi = fastifyPlugin(
  async (app, { publicUrl }: { publicUrl: string | undefined }) => {
    await app.register(swagger, {
      openapi: {
        openapi: '3.1.0',
        info: {
          title: name,
          version,
          description: `${description} Every refusal is a problem document (RFC 9457), whose \`type\` is a page of this service that explains it.`,
          license: { name: license, identifier: license },
        },
        servers: [{ url: publicUrl ?? '/', description: 'This service' }],
        tags: [
          { name: 'Orders', description: 'Create orders, each exactly once, and read them.' },
          { name: 'Problems', description: 'What the codes of problems mean.' },
          { name: 'Operation', description: 'For supervisors, load balancers and Prometheus.' },
        ],
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
        },
      },
      // A route without an `operationId` is not described.
      transform: ({ schema, url }) => ({
        url,
        schema: schema?.operationId ? { security: [], ...schema } : { hide: true },
      }),
      transformObject: (document) =>
        'openapiObject' in document ? nameSchemas(document.openapiObject) : document.swaggerObject,
    })
  },
)

/** Moves each schema that has a title to `components.schemas`, under that title. */
function nameSchemas<T extends { paths?: object; components?: object }>(document: T): T {
  const schemas: Record<string, object> = {}
  const move = (value: unknown, key?: string): unknown => {
    if (typeof value !== 'object' || value === null) return value
    if (key === 'example' || key === 'examples') return value // a problem has a title, too
    if (Array.isArray(value)) return value.map((item) => move(item))
    const moved = Object.fromEntries(
      Object.entries(value).map(([name, member]) => [name, move(member, name)]),
    )
    if (typeof moved.title !== 'string') return moved
    schemas[moved.title] = moved
    return { $ref: `#/components/schemas/${moved.title}` }
  }
  const paths = move(document.paths)
  return { ...document, paths, components: { ...document.components, schemas } }
}
