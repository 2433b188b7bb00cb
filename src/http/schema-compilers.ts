/** The schemas of routes describe them in the OpenAPI document; Fastify itself checks and converts nothing. */
import { fastifyPlugin } from 'fastify-plugin'

/**
 * Bodies are checked by `bodyCheck`, and headers by the pipeline, each in its place. Responses are sent as the
 * bytes they are.
 */
export const schemaCompilers = fastifyPlugin(
  async (app) => {
    app.setValidatorCompiler(() => () => true)
    app.setSerializerCompiler(() => JSON.stringify)
  },
  { name: 'schema-compilers' },
)
