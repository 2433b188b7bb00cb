/** `GET /openapi.json`, the OpenAPI document; `GET /docs`, where Swagger UI shows it and sends requests. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import fastifyStatic from '@fastify/static'
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import { APPLICATION } from '../application.ts'
import { sendPage } from './pages.ts'

/** Swagger UI from the package that has it without the telemetry of `swagger-ui-dist`. The page is our own. */
const SWAGGER_UI_FOLDER = join(
  dirname(createRequire(import.meta.url).resolve('@fastify/swagger-ui')),
  'static',
)
const SWAGGER_UI_FILES = ['swagger-ui-bundle.js', 'swagger-ui.css']

export interface ApiReferenceOptions {
  /** a published secret, which the page names */
  knownSecret: string | undefined
  /** whether `X-Signature` is accepted */
  hasSharedSecret: boolean
}

/** Adds the OpenAPI document, and the page and files of Swagger UI. */
export const apiReference: FastifyPluginAsync<ApiReferenceOptions> = async (
  app,
  { knownSecret, hasSharedSecret },
) => {
  let openApiJson: string | undefined
  app.get('/openapi.json', async (_request, reply) => {
    openApiJson ??= JSON.stringify(app.swagger()) // complete only when all routes are there
    return reply.type('application/json; charset=utf-8').send(openApiJson)
  })

  // Swagger UI is large. Its path has its hash, so a browser can keep it for ever.
  const swaggerUi = `/docs/static/${await hashSwaggerUi()}/`
  await app.register(fastifyStatic, {
    root: SWAGGER_UI_FOLDER,
    prefix: swaggerUi,
    index: false,
    decorateReply: false,
    allowedPath: (path) => SWAGGER_UI_FILES.includes(path.slice(1)),
    immutable: true,
    maxAge: '1y',
  })

  const { description, version } = APPLICATION
  const sendReference = (_request: FastifyRequest, reply: FastifyReply) =>
    sendPage(reply, 'api-reference', {
      ...{ description, version, knownSecret, hasSharedSecret, swaggerUi },
    })
  app.get('/docs', sendReference)
  app.get('/docs/', sendReference)
}

/** Returns a hash of the files of Swagger UI: another version has other paths. */
async function hashSwaggerUi(): Promise<string> {
  const hash = createHash('sha256')
  for (const file of SWAGGER_UI_FILES) hash.update(await readFile(join(SWAGGER_UI_FOLDER, file)))
  return hash.digest('hex').slice(0, 16)
}
