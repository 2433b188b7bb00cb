import accepts from '@fastify/accepts'
import helmet from '@fastify/helmet'
import { fastifyPlugin } from 'fastify-plugin'
import { type ApiReferenceOptions, apiReference, REFERENCE_STYLE } from './api-reference.ts'
import { browserFiles } from './browser-files.ts'
import { FRONT_STYLE, type FrontPageOptions, frontPage } from './front-page.ts'
import { openApi } from './open-api.ts'
import { styleSource } from './page.ts'

/** The pages about the service; register it before the routes that its reference tells of. */
export const docs = fastifyPlugin(async (app, options: ApiReferenceOptions & FrontPageOptions) => {
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
          formAction: ["'none'"], // so that no form can send the secret, whatever goes wrong
          frameAncestors: ["'none'"],
        },
      },
    })
    await pages.register(browserFiles)
    await pages.register(apiReference, options)
    await pages.register(frontPage, options)
  })
})
