import { hash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'

/** The media type of all pages. */
export const HTML = 'text/html; charset=utf-8'

/** What all pages look like; light or dark as the reader prefers. */
const BASE_STYLE = `
  :root { color-scheme: light dark; --ink: #1a1f36; --paper: #fff; --tint: #eef1f6; --line: #d3d9e6; --quiet: #565e70; --accent: #3a4bbd; }
  @media (prefers-color-scheme: dark) { :root { --ink: #e6e8ee; --paper: #14171f; --tint: #232835; --line: #3a4254; --quiet: #a0a8b9; --accent: #a9b6ff; } }
  body { font: 1.1rem/1.6 system-ui, sans-serif; margin: 0 auto; padding: 0 1.5rem; color: var(--ink); background: var(--paper); }
  h1 { font-size: 1.5rem; line-height: 1.3; }
  :is(p, small) code { background: var(--tint); padding: .1em .4em; border-radius: .3em; }
`

/** A page's parts, in HTML; `style` and `title` are text. */
export interface Page {
  title: string
  style: string
  head?: string
  body: string
}

/** A whole page, in the look that all pages share. */
export function htmlOf({ title, style, head = '', body }: Page): string {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escapeHtml(title)}</title>
${head}<style>${BASE_STYLE}${style}</style>
${body}
</html>
`
}

/** Allows a page its own style in a Content-Security-Policy, and no other. */
export function styleSource(style: string): string {
  return `'sha256-${hash('sha256', `${BASE_STYLE}${style}`, 'base64')}'`
}

/**
 * Whether to answer with a page: a browser asks for HTML by name; a program that takes anything gets
 * JSON. Notes in the reply that it depends on that.
 */
export function wantsPage(request: FastifyRequest, reply: FastifyReply): boolean {
  reply.header('vary', 'Accept')
  return request.accepts().type(['json', 'html']) === 'html'
}

/** Text as it stands in HTML, between tags or in a quoted attribute. */
export const escapeHtml = (text: string): string =>
  text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`)

/** A sentence, in HTML, that tells a secret which anybody may know. */
export const hintOf = (knownSecret: string | undefined): string =>
  knownSecret === undefined ? '' : `In development it is <code>${escapeHtml(knownSecret)}</code>. `
