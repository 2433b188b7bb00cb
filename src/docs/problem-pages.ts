import accepts from '@fastify/accepts'
import helmet from '@fastify/helmet'
import type { FastifyPluginAsync } from 'fastify'
import { describeProblems } from '../http/problem-schemas.ts'
import {
  PROBLEM_CODES,
  PROBLEMS,
  PROBLEMS_PATH,
  type ProblemCode,
  problems,
} from '../http/problems.ts'
import { HTML, htmlOf, styleSource, wantsPage } from './page.ts'

const STYLE = 'body { max-width: 38rem; margin: 15vh auto; }'

const SCHEMA = {
  operationId: 'explainProblem',
  tags: ['Problems'],
  summary: 'Explain a problem',
  params: { properties: { code: { type: 'string', enum: PROBLEM_CODES } } },
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
    ...describeProblems(['not-found']),
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
  const options = { schema: SCHEMA }
  app.get<{ Params: { code: string } }>('/problems/:code', options, async (request, reply) => {
    const { code } = request.params
    if (!isProblemCode(code)) {
      throw problems.notFound(`${PROBLEMS_PATH}${code}`)
    }
    if (wantsPage(request, reply)) return reply.type(HTML).send(pageOf(code))
    return explanationOf(code)
  })
}

function explanationOf(code: ProblemCode) {
  return { type: PROBLEMS_PATH + code, code, ...PROBLEMS[code] }
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
