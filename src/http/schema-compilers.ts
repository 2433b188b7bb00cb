/** What the schemas of routes do: the body is validated; all else only describes. */
import { Ajv, type KeywordDefinition } from 'ajv'
import { fastifyPlugin } from 'fastify-plugin'

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
