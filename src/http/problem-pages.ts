import accepts from '@fastify/accepts'
import helmet from '@fastify/helmet'
import type { FastifyPluginAsync } from 'fastify'
import type { RouteReference } from './open-api.ts'
import { HTML, htmlOf, styleSource, wantsPage } from './page.ts'
import { PROBLEMS, Problem, type ProblemCode, problemPath } from './problem.ts'
import { problemResponses } from './problem-responses.ts'

const STYLE = 'body { max-width: 38rem; margin: 15vh auto; }'

const REFERENCE: RouteReference = {
  operationId: 'explainProblem',
  tags: ['Problems'],
  summary: 'Explain a problem',
  params: { properties: { code: { type: 'string', enum: Object.keys(PROBLEMS) } } },
  response: {
    200: {
      description: 'What happened, and what to do about it.',
      content: {
        'application/json': {
          schema: { type: 'object' },
          example: explanationOf('request-in-progress'),
        },
        'text/html': { schema: { type: 'string' } },
      },
    },
    ...problemResponses(['not-found']),
  },
}

/** `GET /problems/<code>`: what the `type` of a problem document refers to, as a page or as JSON. */
export const problemPages: FastifyPluginAsync = async (app) => {
  await app.register(accepts)
  await app.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: { defaultSrc: ["'none'"], styleSrc: [styleSource(STYLE)] },
    },
  })
  const options = { config: { reference: REFERENCE } }
  app.get<{ Params: { code: string } }>('/problems/:code', options, async (request, reply) => {
    const { code } = request.params
    if (!isProblemCode(code)) {
      throw new Problem('not-found', `There is no problem called ${JSON.stringify(code)}.`)
    }
    if (wantsPage(request, reply)) return reply.type(HTML).send(pageOf(code))
    return explanationOf(code)
  })
}

function explanationOf(code: ProblemCode) {
  return { type: problemPath(code), code, ...PROBLEMS[code] }
}

function isProblemCode(code: string): code is ProblemCode {
  return Object.hasOwn(PROBLEMS, code)
}

function pageOf(code: ProblemCode): string {
  const { status, title, explanation } = PROBLEMS[code]
  return htmlOf({
    title: `${status} ${code}`,
    style: STYLE,
    body: `<p><code>${status}</code> <code>${code}</code></p>
<h1>${title}</h1>
<p>${explanation}</p>`,
  })
}
