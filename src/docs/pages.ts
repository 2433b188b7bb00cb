/** Renders the templates in `pages/` and serves the styles, scripts and the icon there. */
import { fileURLToPath } from 'node:url'
import fastifyStatic from '@fastify/static'
import { Eta } from 'eta'
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'

/** In the sources, seen from src/docs and dist/docs alike: these files are not compiled. */
const FOLDER = fileURLToPath(new URL('../../src/docs/pages/', import.meta.url))

/** Tags in braces, so that the templates are HTML to other tools. */
const eta = new Eta({
  views: FOLDER,
  defaultExtension: '.html',
  tags: ['{%', '%}'],
  cache: true,
})

/**
 * Renders the template `pages/<name>.html`.
 *
 * @param data what the template calls `it`; escaped where the template writes `{%= … %}`
 */
export function renderPage(name: string, data: object): string {
  return eta.render(name, data)
}

/** Sends a rendered template. */
export function sendPage(reply: FastifyReply, name: string, data: object): FastifyReply {
  return reply.type('text/html; charset=utf-8').send(renderPage(name, data))
}

/**
 * Whether to respond with a page: a browser names HTML in `Accept`; a program that accepts anything gets
 * JSON. Sets `Vary`.
 */
export function wantsPage(request: FastifyRequest, reply: FastifyReply): boolean {
  reply.header('vary', 'Accept')
  return request.accepts().type(['json', 'html']) === 'html'
}

/**
 * `GET /assets/<file>`. A browser revalidates each time, so it never mixes files of two versions.
 * `GET /favicon.ico`, which browsers request for JSON.
 */
export const assets: FastifyPluginAsync = async (app) => {
  await app.register(fastifyStatic, {
    root: FOLDER,
    prefix: '/assets/',
    index: false,
    decorateReply: false,
    allowedPath: (path) => /\.(css|js|svg)$/.test(path),
  })
  app.get('/favicon.ico', (_request, reply) => reply.redirect('/assets/icon.svg'))
}
