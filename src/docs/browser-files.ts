import { hash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import type { FastifyPluginAsync } from 'fastify'
import { problems } from '../http/problems.ts'

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

/** What is sent of a file. */
interface Asset {
  bytes: Buffer
  etag: string
}

/** `GET /assets/<name>`: the scripts and styles of the pages. A browser asks each time for what changed. */
export const browserFiles: FastifyPluginAsync = async (app) => {
  /** Those that were asked for: to hash 1.7 MB takes a millisecond, in which nobody else is served. */
  const assets = new Map<string, Asset>()

  app.get<{ Params: { name: string } }>('/assets/:name', async (request, reply) => {
    const { name } = request.params
    const file = FILES.get(name)
    if (!file) throw problems.notFound(`/assets/${name}`)
    const asset = assets.get(name) ?? (await readAsset(new URL(name, file.folder)))
    assets.set(name, asset)
    const { bytes, etag } = asset
    reply.headers({ etag, 'cache-control': 'no-cache' })
    if (request.headers['if-none-match'] === etag) return reply.code(304).send()
    return reply.type(file.type).send(bytes)
  })
}

async function readAsset(url: URL): Promise<Asset> {
  const bytes = await readFile(url)
  return { bytes, etag: `"${hash('sha256', bytes, 'base64url')}"` }
}
