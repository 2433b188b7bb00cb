/** `GET /openapi.json`, the OpenAPI document; `GET /docs`, where Swagger UI shows it and sends requests. */
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyPluginAsync } from 'fastify'
import { readThemeFile, sendPage } from './pages.ts'

/** Swagger UI is large and changes only with an update of its package: a day saves most downloads. */
const SWAGGER_UI_MAX_AGE_S = 86_400

export interface ApiReferenceOptions {
  /** a published secret, which the page names */
  knownSecret: string | undefined
  /** whether `X-Signature` is accepted, which the page makes */
  hasSharedSecret: boolean
}

export const apiReference: FastifyPluginAsync<ApiReferenceOptions> = async (
  app,
  { knownSecret, hasSharedSecret },
) => {
  let openApiJson: string | undefined
  app.get('/openapi.json', async (_request, reply) => {
    openApiJson ??= JSON.stringify(app.swagger()) // complete only when all routes are there
    return reply.type('application/json; charset=utf-8').send(openApiJson)
  })
  app.get('/docs/additions.html', (_request, reply) =>
    sendPage(reply, 'api-reference', { knownSecret, hasSharedSecret }),
  )
  app.addHook('onSend', async ({ url }, reply) => {
    if (url.startsWith('/docs/static/swagger-ui')) {
      reply.header('cache-control', `public, max-age=${SWAGGER_UI_MAX_AGE_S}`)
    }
  })
  await app.register(swaggerUi, {
    routePrefix: '/docs',
    uiConfig: {
      layout: 'BaseLayout', // without the bar for other documents
      deepLinking: true,
      defaultModelsExpandDepth: 0, // closed: the examples show as much
    },
    theme: {
      title: 'order-once: API reference',
      css: await Promise.all(['shared.css', 'api-reference.css'].map(readThemeFile)),
      js: [await readThemeFile('api-reference.js')],
    },
  })
}
