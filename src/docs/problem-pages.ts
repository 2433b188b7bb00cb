/**
 * `GET /problems/<code>`: what the `type` of a problem document refers to; `GET /problems`: all of them. Each is
 * a page or JSON. The links of the pages are relative, so that they work below the path of a proxy.
 */
import type { FastifyPluginAsync } from 'fastify'
import { describeProblems } from '../http/problem-schemas.ts'
import {
  PROBLEM_CODES,
  PROBLEMS,
  PROBLEMS_PATH,
  type ProblemCode,
  problems,
} from '../http/problems.ts'
import { TEXT_PAGE_POLICY } from './content-security-policy.ts'
import { sendPage, wantsPage } from './pages.ts'

const EXPLANATION = {
  title: 'Explanation',
  type: 'object',
  properties: {
    type: { type: 'string', format: 'uri-reference' },
    code: { type: 'string', enum: PROBLEM_CODES },
    status: { type: 'integer' },
    title: { type: 'string' },
    explanation: { type: 'string' },
  },
  required: ['type', 'code', 'status', 'title', 'explanation'],
}

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
          schema: EXPLANATION,
          example: explainProblem('request-in-progress'),
        },
        'text/html': { schema: { type: 'string' } },
      },
    },
    ...describeProblems(['not-found']),
  },
}

export interface ProblemPagesOptions {
  /** whether there are a front page and an API reference to link to */
  hasDocs: boolean
}

/** Adds the pages of problems: one for each code, and the list. */
export const problemPages: FastifyPluginAsync<ProblemPagesOptions> = async (app, { hasDocs }) => {
  const helmet = { contentSecurityPolicy: TEXT_PAGE_POLICY }

  app.get<{ Params: { code: string } }>(
    '/problems/:code',
    { schema: SCHEMA, helmet },
    async (request, reply) => {
      const { code } = request.params
      if (!isProblemCode(code)) throw problems.notFound(`${PROBLEMS_PATH}${code}`)
      const explanation = explainProblem(code)
      return wantsPage(request, reply)
        ? sendPage(reply, 'problem', { ...explanation, hasDocs })
        : explanation
    },
  )

  app.get('/problems', { helmet }, async (request, reply) => {
    const list = { problems: PROBLEM_CODES.map(explainProblem) }
    return wantsPage(request, reply) ? sendPage(reply, 'problems', { ...list, hasDocs }) : list
  })
  app.get('/problems/', (_request, reply) => reply.redirect('../problems'))
}

function explainProblem(code: ProblemCode) {
  return { type: PROBLEMS_PATH + code, code, ...PROBLEMS[code] }
}

function isProblemCode(code: string): code is ProblemCode {
  return Object.hasOwn(PROBLEMS, code)
}
