/** The pages about the service: front page, API reference, OpenAPI document and problem pages. */
import accepts from '@fastify/accepts'
import compress from '@fastify/compress'
import helmet from '@fastify/helmet'
import { fastifyPlugin } from 'fastify-plugin'
import { DEVELOPMENT_SECRET } from '../secret.ts'
import { isSecretPublished, type Settings } from '../settings.ts'
import { apiReference } from './api-reference.ts'
import { SCRIPT_PAGE_POLICY } from './content-security-policy.ts'
import { frontPage } from './front-page.ts'
import { openApi } from './open-api.ts'
import { assets } from './pages.ts'
import { problemPages } from './problem-pages.ts'
import { describeStores } from './stores-in-use.ts'

export interface DocsOptions {
  settings: Settings
  /** of the body of an order */
  orderSchema: object
}

/** Register it before the routes that the OpenAPI document describes. */
export const docs = fastifyPlugin(
  async (app, { settings, orderSchema }: DocsOptions) => {
    if (settings.docs === 'on') await app.register(openApi, { publicUrl: settings.publicUrl })
    await app.register(async (pages) => {
      await pages.register(accepts)
      await pages.register(compress, { encodings: ['br', 'gzip'], globalDecompression: false })
      await pages.register(helmet, {
        contentSecurityPolicy: SCRIPT_PAGE_POLICY,
        strictTransportSecurity: false, // it would hold for the operator's whole domain
      })
      await pages.register(assets)
      await pages.register(problemPages, { hasDocs: settings.docs === 'on' })
      if (settings.docs === 'off') return
      const knownSecret = isSecretPublished(settings) ? DEVELOPMENT_SECRET : undefined
      const hasSharedSecret = settings.hmacSecrets.length > 0
      await pages.register(apiReference, { knownSecret, hasSharedSecret })
      await pages.register(frontPage, {
        orderSchema,
        knownSecret,
        hasSharedSecret,
        stores: describeStores(settings, app.stores),
        hasMetrics: settings.metricsPort === undefined,
      })
    })
  },
  { name: 'docs', dependencies: ['stores', 'error-handler'] },
)
