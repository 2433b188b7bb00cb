import { createHash } from 'node:crypto'
import accepts from '@fastify/accepts'
import helmet from '@fastify/helmet'
import type { FastifyPluginAsync } from 'fastify'
import { PROBLEMS, Problem, type ProblemCode, problemPath } from './problem.ts'

const STYLE = `
  body { font: 1.1rem/1.6 system-ui, sans-serif; max-width: 38rem; margin: 15vh auto; padding: 0 1.5rem; color: #1a1f36; }
  h1 { font-size: 1.5rem; line-height: 1.3; }
  code { background: #eef1f6; padding: .1em .4em; border-radius: .3em; }
  @media (prefers-color-scheme: dark) { body { background: #14171f; color: #e6e8ee; } code { background: #262b38; } }
`

/** `GET /problems/<code>`: what the `type` of a problem document refers to, as a page or as JSON. */
export const problemPages: FastifyPluginAsync = async (app) => {
  await app.register(accepts)
  await app.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: { defaultSrc: ["'none'"], styleSrc: [hashSource(STYLE)] },
    },
  })
  app.get<{ Params: { code: string } }>('/problems/:code', async (request, reply) => {
    const { code } = request.params
    if (!isProblemCode(code)) {
      throw new Problem('not-found', `There is no problem called ${JSON.stringify(code)}.`)
    }
    reply.header('vary', 'Accept')
    // A browser asks for HTML by name; a program that takes anything gets JSON.
    if (request.accepts().type(['json', 'html']) === 'html') {
      return reply.type('text/html; charset=utf-8').send(pageOf(code))
    }
    return { type: problemPath(code), code, ...PROBLEMS[code] }
  })
}

function isProblemCode(code: string): code is ProblemCode {
  return Object.hasOwn(PROBLEMS, code)
}

/** Allows this very text in a Content-Security-Policy, and no other. */
const hashSource = (text: string) =>
  `'sha256-${createHash('sha256').update(text).digest('base64')}'`

function pageOf(code: ProblemCode): string {
  const { status, title, explanation } = PROBLEMS[code]
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${status} ${code}</title>
<style>${STYLE}</style>
<p><code>${status}</code> <code>${code}</code></p>
<h1>${title}</h1>
<p>${explanation}</p>
</html>
`
}
