/** An application whose routes the plugin protects. */
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify'
import { fastify as oldestFastify } from 'fastify-oldest'
import { onTestFinished } from 'vitest'
import {
  createMemoryStore,
  errorHandler,
  type IdempotencyOptions,
  idempotency,
} from '../../src/index.ts'

type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown

export const LEASE_MS = 30_000

export const memoryStore = (options: { now?: () => number; replayedHeaders?: string[] } = {}) =>
  createMemoryStore({ leaseMs: LEASE_MS, ttlMs: 86_400_000, ...options })

/** The versions of Fastify that the package supports, from the oldest to the newest. */
export const FASTIFY_VERSIONS: Record<string, typeof fastify> = {
  '5.2.0': oldestFastify as unknown as typeof fastify,
  newest: fastify,
}

/** A line of the log, from level warn on. */
export interface LogLine {
  level: number
  msg: string
  err?: { message: string }
}

/** Creates an empty application, which closes when the test ends, and its log. */
export function createEmptyApp(create: typeof fastify = fastify) {
  const log: LogLine[] = []
  const warnings: string[] = []
  const write = (text: string) => {
    const line: LogLine = JSON.parse(text)
    log.push(line)
    warnings.push(line.msg)
  }
  const app = create({ logger: { level: 'warn', stream: { write } } })
  onTestFinished(() => app.close())
  return { app, log, warnings }
}

export interface TestApp {
  app: FastifyInstance
  /** how often the handler has run */
  runs: () => number
  /** the messages in the log, from level warn on */
  warnings: string[]
}

/** Creates the application; it closes when the test ends. */
export async function createApp(
  handler: Handler,
  options: Partial<IdempotencyOptions> = {},
): Promise<TestApp> {
  let runs = 0
  const { app, warnings } = createEmptyApp()
  await app.register(errorHandler)
  await app.register(idempotency, { store: memoryStore(), ...options })
  app.route({
    method: ['GET', 'POST', 'PUT'],
    url: '/things/:id',
    handler: (request, reply) => {
      runs++
      return handler(request, reply)
    },
  })
  app.post('/others/:id', () => ({ other: true }))
  return { app, runs: () => runs, warnings }
}

/** Sends a request under the key `key`. */
export const post = (
  app: FastifyInstance,
  body: object = { a: 1 },
  headers: Record<string, string> = {},
) =>
  app.inject({
    method: 'POST',
    url: '/things/1',
    payload: body,
    headers: { 'idempotency-key': 'key', ...headers },
  })

/** Whether the response is a replay. */
export const isReplayed = ({ headers }: { headers: Record<string, unknown> }) =>
  headers['idempotency-replayed'] === 'true'
