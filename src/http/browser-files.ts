import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import type { FastifyPluginAsync } from 'fastify'
import { Problem } from './problem.ts'

/** Compiled from `src/browser`; where it is, seen from `src/http` and from `dist/http` alike. */
const OWN = new URL('../../dist/browser/', import.meta.url)
const SWAGGER_UI = new URL(
  'static/',
  pathToFileURL(createRequire(import.meta.url).resolve('@fastify/swagger-ui')),
)

const SCRIPT = 'text/javascript; charset=utf-8'
const STYLE = 'text/css; charset=utf-8'

/** What browsers may load, by name. */
const FILES = new Map([
  ['api-reference.js', { folder: OWN, type: SCRIPT }],
  ['find.js', { folder: OWN, type: SCRIPT }],
  ['front-page.js', { folder: OWN, type: SCRIPT }],
  ['signing.js', { folder: OWN, type: SCRIPT }],
  ['swagger-ui-bundle.js', { folder: SWAGGER_UI, type: SCRIPT }],
  ['swagger-ui.css', { folder: SWAGGER_UI, type: STYLE }],
])

/** `GET /assets/<name>`: the scripts and styles of the pages. A browser asks each time for what changed. */
export const browserFiles: FastifyPluginAsync = async (app) => {
  app.get<{ Params: { name: string } }>('/assets/:name', async (request, reply) => {
    const { name } = request.params
    const file = FILES.get(name)
    if (!file) throw new Problem('not-found', `There is no asset called ${JSON.stringify(name)}.`)
    const bytes = await readFile(new URL(name, file.folder))
    const etag = `"${createHash('sha256').update(bytes).digest('base64url')}"`
    reply.headers({ etag, 'cache-control': 'no-cache' })
    if (request.headers['if-none-match'] === etag) return reply.code(304).send()
    return reply.type(file.type).send(bytes)
  })
}
