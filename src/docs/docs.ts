/** The pages about the service: front page, API reference, OpenAPI document and problem pages. */
import accepts from '@fastify/accepts'
import helmet from '@fastify/helmet'
import { fastifyPlugin } from 'fastify-plugin'
import { DEVELOPMENT_SECRET } from '../development-secret.ts'
import type { Settings } from '../settings.ts'
import { apiReference, REFERENCE_STYLE } from './api-reference.ts'
import { browserFiles } from './browser-files.ts'
import { FRONT_STYLE, frontPage } from './front-page.ts'
import { openApi } from './open-api.ts'
import { styleSource } from './page.ts'
import { problemPages } from './problem-pages.ts'
import { describeStores } from './stores-in-use.ts'

/** Register it before the routes that the OpenAPI document describes. */
export const docs = fastifyPlugin(
  async (app, { settings }: { settings: Settings }) => {
    await app.register(problemPages)
    if (settings.docs === 'off') return
    const knownSecret = settings.hmacSecrets.find((secret) => secret === DEVELOPMENT_SECRET)
    await app.register(openApi)
    await app.register(async (pages) => {
      await pages.register(accepts)
      await pages.register(helmet, {
        contentSecurityPolicy: {
          useDefaults: false,
          directives: {
            defaultSrc: ["'none'"],
            scriptSrc: ["'self'"],
            styleSrc: ["'self'", styleSource(FRONT_STYLE), styleSource(REFERENCE_STYLE)],
            imgSrc: ['data:'], // the icons of Swagger UI are in its style
            connectSrc: ["'self'"],
            baseUri: ["'none'"],
            formAction: ["'none'"], // so that no form can send the secret, whatever happens
            frameAncestors: ["'none'"],
          },
        },
      })
      await pages.register(browserFiles)
      await pages.register(apiReference, { knownSecret })
      await pages.register(frontPage, {
        knownSecret,
        storesInUse: describeStores(settings, app.stores),
        hasMetrics: settings.metricsPort === undefined,
      })
    })
  },
  { name: 'docs', dependencies: ['stores', 'error-handler'] },
)
